//! Which models of a table cannot be told from the best.

use std::collections::BTreeMap;

use super::Better;
use super::adjust::holm;
use super::estimate::mean;
use super::paired::{shared_differences, t_test, welch};

/// Seeds below which a model is not marked.
pub const FEWEST_SEEDS: usize = 3;
/// Chance of one wrong distinction or more in a table.
const LEVEL: f64 = 0.05;
/// Share of that chance for the test with all seeds; the rest is for those with one left out, where there are enough.
const WITH_ALL: f64 = 0.8;

/// What a table says of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It cannot be told from the best.
    Best,
    /// It is worse than another.
    Worse,
    /// Too few seeds, values that are no numbers, or nothing to compare with.
    Unknown,
}

/// Marks for models with one value per seed each, in their order.
///
/// A model is marked unless it is worse than *some* other one at 5 %, adjusted by Holm over all pairs: to compare with the best mean
/// alone would be fooled twice, since that mean is the luckiest of many, and if its seeds are far apart everything would look like
/// it. Two models are compared by the paired t test over the seeds that they share, by Welch's where they share fewer than
/// three. With four seeds and more they also differ if they do with any one seed left out (Bonferroni over which one, a fifth of the
/// level): one seed that went astray must not hide by its spread what all others say.
///
/// With fewer than three seeds a model is neither marked nor compared with, and if its mean is better than all those of enough seeds,
/// nothing is marked: it could be the best. Nor is anything marked where fewer than two models can be compared.
pub fn marks(models: &[BTreeMap<u64, f64>], better: Better) -> Vec<Mark> {
    let mut marks = vec![Mark::Unknown; models.len()];
    let finite = |model: &&BTreeMap<u64, f64>| !model.is_empty() && model.values().all(|v| v.is_finite());
    let whole: Vec<(usize, &BTreeMap<u64, f64>)> =
        models.iter().enumerate().filter(|(_, model)| finite(model)).collect();
    let (known, few): (Vec<_>, Vec<_>) = whole.into_iter().partition(|(_, model)| model.len() >= FEWEST_SEEDS);
    let best = |some: &[(usize, &BTreeMap<u64, f64>)]| {
        some.iter().map(|(_, model)| loss(model, better)).min_by(f64::total_cmp)
    };
    let lucky = best(&few).zip(best(&known)).is_some_and(|(few, known)| few < known);
    if known.len() < 2 || lucky {
        return marks;
    }
    let pairs: Vec<(usize, usize, Told)> = known
        .iter()
        .enumerate()
        .flat_map(|(i, a)| known.iter().skip(i + 1).map(move |b| (a.0, b.0, told_apart(a.1, b.1, better))))
        .collect();
    let adjusted = holm(&pairs.iter().map(|pair| pair.2.p).collect::<Vec<f64>>());
    for (i, _) in &known {
        let worse = pairs
            .iter()
            .zip(&adjusted)
            .any(|((a, b, told), p)| *p < LEVEL && if told.first_is_worse { a == i } else { b == i });
        if let Some(mark) = marks.get_mut(*i) {
            *mark = if worse { Mark::Worse } else { Mark::Best };
        }
    }
    marks
}

/// Mean of a model, turned so that less is better.
fn loss(model: &BTreeMap<u64, f64>, better: Better) -> f64 {
    sign(better) * mean(&model.values().copied().collect::<Vec<f64>>())
}

fn sign(better: Better) -> f64 {
    match better {
        Better::Lower => 1.0,
        Better::Higher => -1.0,
    }
}

/// How surely two models differ, and which is worse.
#[derive(Clone, Copy, Debug)]
struct Told {
    p: f64,
    first_is_worse: bool,
}

fn told_apart(a: &BTreeMap<u64, f64>, b: &BTreeMap<u64, f64>, better: Better) -> Told {
    let told =
        |p: Option<f64>, difference: f64| Told { p: p.unwrap_or(1.0), first_is_worse: sign(better) * difference > 0.0 };
    let differences = shared_differences(a, b);
    let (all, left_out) = if differences.len() >= FEWEST_SEEDS {
        let test = |d: &[f64]| told(t_test(d), mean(d));
        let left_out = without_each(&differences).map(|d| test(&d)).collect();
        (test(&differences), left_out)
    } else {
        let (a, b): (Vec<f64>, Vec<f64>) = (a.values().copied().collect(), b.values().copied().collect());
        let test = |a: &[f64], b: &[f64]| told(welch(a, b), mean(a) - mean(b));
        let of_a = without_each(&a).map(|a| test(&a, &b));
        let of_b = without_each(&b).map(|b| test(&a, &b));
        (test(&a, &b), of_a.chain(of_b).collect::<Vec<Told>>())
    };
    let Some(surest) = left_out.iter().min_by(|a, b| a.p.total_cmp(&b.p)) else { return all };
    let by_all = Told { p: all.p / WITH_ALL, ..all };
    let by_most = Told { p: surest.p * left_out.len() as f64 / (1.0 - WITH_ALL), ..*surest };
    if by_most.p < by_all.p { by_most } else { by_all }
}

/// The values without one of them, for each; none where fewer than three would be left.
fn without_each(values: &[f64]) -> impl Iterator<Item = Vec<f64>> + '_ {
    let each = if values.len() > FEWEST_SEEDS { values.len() } else { 0 };
    (0..each).map(|out| values.iter().enumerate().filter(|(i, _)| *i != out).map(|(_, v)| *v).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mark::{Best, Unknown, Worse};

    fn model(values: &[f64]) -> BTreeMap<u64, f64> {
        (1u64..).zip(values.iter().copied()).collect()
    }

    fn of(models: &[&[f64]]) -> Vec<Mark> {
        let models: Vec<_> = models.iter().map(|values| model(values)).collect();
        let turned: Vec<BTreeMap<u64, f64>> =
            models.iter().map(|m| m.iter().map(|(seed, v)| (*seed, -v)).collect()).collect();
        let found = marks(&models, Better::Lower);
        assert_eq!(marks(&turned, Better::Higher), found);
        found
    }

    #[test]
    fn what_cannot_be_told_from_the_best_is_marked() {
        assert_eq!(of(&[&[1.0, 1.1, 0.9], &[1.05, 1.0, 1.0], &[3.0, 3.1, 2.9]]), [Best, Best, Worse]);
        assert_eq!(of(&[&[1.0, 1.0, 1.0], &[1.0, 1.0, 1.0]]), [Best, Best], "counts that never vary");
        assert_eq!(of(&[&[1.0, 1.0, 1.0], &[2.0, 2.0, 2.0]]), [Best, Worse]);
    }

    #[test]
    fn with_fewer_than_three_seeds_nothing_is_marked() {
        assert_eq!(of(&[&[1.0, 1.0], &[2.0, 2.0]]), [Unknown, Unknown]);
        assert_eq!(of(&[&[1.0, 1.0, 1.0]]), [Unknown], "nothing to compare with");
        assert_eq!(of(&[&[1.0, 1.0, 1.0], &[2.0]]), [Unknown, Unknown]);
        assert_eq!(of(&[&[1.0, 1.0, 1.0], &[f64::NAN, 1.0, 1.0]]), [Unknown, Unknown]);
        assert_eq!(of(&[]), []);
        let worse_and_few = of(&[&[1.0, 1.0, 1.0], &[2.0, 2.0, 2.0], &[9.0], &[]]);
        assert_eq!(worse_and_few, [Best, Worse, Unknown, Unknown]);
    }

    #[test]
    fn one_lucky_seed_is_not_the_best_and_leaves_none() {
        let (good, bad): (&[f64], &[f64]) = (&[10.0, 10.1, 9.9, 10.05, 9.97], &[15.0, 15.2, 14.9, 15.1, 15.05]);
        assert_eq!(of(&[good, bad, &[3.0]]), [Unknown; 3], "it may be the best, or luck");
        // five seeds of a bad model, one of them far better than anything: its mean is the best
        assert_eq!(of(&[good, bad, &[15.1, 15.0, 14.8, 15.0, -40.0]]), [Best, Worse, Worse]);
        // a small advantage by one lucky seed is no distinction
        assert_eq!(of(&[&[10.0, 10.1, 9.9, 10.05, 9.97], &[10.02, 10.08, 9.92, 10.0, 9.0]]), [Best, Best]);
    }

    #[test]
    fn an_outlier_does_not_hide_the_difference() {
        let (good, bad): (&[f64], &[f64]) = (&[10.0, 10.1, 9.9, 10.05, 9.97], &[15.0, 15.2, 14.9, 15.1, 15.05]);
        let astray: &[f64] = &[15.1, 14.9, 15.0, 15.1, 90.0];
        assert_eq!(of(&[good, bad, astray]), [Best, Worse, Worse]);
        // seeds of their own: Welch's test
        let others: BTreeMap<u64, f64> = (100u64..).zip(astray.iter().copied()).collect();
        assert_eq!(marks(&[model(good), others], Better::Lower), [Best, Worse]);
        // a good model with one seed that diverged is not worse for certain
        assert_eq!(of(&[good, bad, &[10.1, 9.9, 10.0, 10.1, 30.0]])[..2], [Best, Worse]);
    }

    #[test]
    fn pairing_tells_apart_what_the_seeds_hide() {
        let a: &[f64] = &[10.0, 12.0, 8.0, 14.0, 9.0];
        let b: &[f64] = &[10.5, 12.52, 8.49, 14.5, 9.51];
        assert_eq!(of(&[a, b]), [Best, Worse]);
        let unpaired: BTreeMap<u64, f64> = (50u64..).zip(b.iter().copied()).collect();
        assert_eq!(marks(&[model(a), unpaired], Better::Lower), [Best, Best]);
    }
}
