//! What the results of a section say, in a few sentences that are computed from them. Nothing is ranked that cannot be told apart, and
//! what was not measured is not mentioned.

use statistics::Better;
use statistics::best::{FEWEST_SEEDS, Mark, marks};
use statistics::estimate::Estimate;
use statistics::paired::by_seed;

use super::catalogue::{MetricInfo, significant};
use super::group::{Group, Part};
use super::look::OURS;
use super::tables::metric_info;
use super::{energy, provenance, unlearned};

/// Names of a list that are told one by one.
const MOST_NAMES: usize = 4;

/// A section's argument; its first sentences are about quality, the last about energy.
pub(super) fn argument(part: &Part) -> Vec<String> {
    let mut sentences: Vec<String> = quality(part).into_iter().flatten().collect();
    if sentences.is_empty() {
        sentences.push("No cell of this task has a score yet.".into());
    }
    sentences.extend(unlearned::no_better(part));
    sentences.extend(cheapest(part));
    sentences
}

fn quality(part: &Part) -> Option<Vec<String>> {
    let name = *part.main_metrics().first()?;
    let info = metric_info(part, name);
    let better = info.better?;
    let scored: Vec<(&Group, Estimate)> =
        part.groups.iter().filter_map(|g| Some((g, g.metric(name, Some(part.split)).estimate()?))).collect();
    let loss = |e: &Estimate| if better == Better::Higher { -e.mean } else { e.mean };
    let (best, e) = scored.iter().min_by(|a, b| loss(&a.1).total_cmp(&loss(&b.1)))?;
    let direction = if better == Better::Lower { "lowest" } else { "highest" };
    if scored.len() == 1 {
        return Some(vec![format!("{} reaches {} {}.", part.label(best), info.label, info.estimate(e))]);
    }
    let head = format!(
        "Of {} configurations {} has the {direction} mean, {} {}",
        scored.len(),
        part.label(best),
        info.label,
        info.estimate(e)
    );
    let seeds: Vec<_> = scored.iter().map(|(group, _)| group.by_seed(name, Some(part.split))).collect();
    let found = marks(&seeds, better);
    let ranked = found.contains(&Mark::Best);
    let mut sentences = Vec::new();
    if ranked {
        let others: Vec<String> = scored
            .iter()
            .zip(&found)
            .filter(|((group, _), mark)| **mark == Mark::Best && !std::ptr::eq(*group, *best))
            .map(|((group, _), _)| part.label(group))
            .collect();
        let unknown = found.iter().filter(|mark| **mark == Mark::Unknown).count();
        let left = if unknown == 0 {
            String::new()
        } else {
            format!(" ({unknown} with fewer than {FEWEST_SEEDS} seeds not compared)")
        };
        sentences.push(match others.len() {
            0 => format!("{head}; each of the others can be told from it{left}."),
            n if n + 1 == scored.len() => {
                format!("{head}; none of the others can be told from it at 5 %, over all pairs at once.")
            }
            _ => format!("{head}; {} cannot be told from it at 5 %, over all pairs at once{left}.", names(&others)),
        });
    } else {
        let fewest = scored.iter().map(|(_, e)| e.n).min().unwrap_or(0);
        let word = if fewest == 1 { "seed" } else { "seeds" };
        sentences.push(format!("{head}; {fewest} {word} cannot rank them, {FEWEST_SEEDS} could."));
    }
    sentences.extend(bim(part, name, &info, best));
    Some(sentences)
}

/// Where BIM stands against the best.
fn bim(part: &Part, name: &str, info: &MetricInfo, best: &Group) -> Option<String> {
    let group = part.first_of(OURS).filter(|group| !std::ptr::eq(*group, best))?;
    let values = |group: &Group| group.by_seed(name, Some(part.split));
    let paired = by_seed(&values(group), &values(best))?;
    let own = group.metric(name, Some(part.split)).estimate()?;
    Some(format!(
        "{} has {}, {} from the best, paired by seed.",
        part.label(group),
        info.estimate(&own),
        info.difference(&paired.difference)
    ))
}

/// Which model uses least energy, and what BIM uses of it, by the price that counts everything.
fn cheapest(part: &Part) -> Option<String> {
    let group = part.first_of(OURS)?;
    let others = part.kinds_but(OURS).into_iter().filter_map(|kind| part.first_of(kind));
    let ratio = |other: &Group| {
        let (_, e) = energy::ratios(group, other).into_iter().find(|(price, _)| *price == energy::IN_ALL)?;
        Some((part.label(other), e))
    };
    let all: Vec<(String, Estimate)> = others.filter_map(ratio).collect();
    let (most, least) = (
        all.iter().max_by(|a, b| a.1.mean.total_cmp(&b.1.mean))?,
        all.iter().min_by(|a, b| a.1.mean.total_cmp(&b.1.mean))?,
    );
    let unit = provenance::unit(part);
    let one = unit.strip_suffix('s').unwrap_or(unit);
    let times = |e: &Estimate| format!("{}×", significant(e.mean, 3));
    let label = "training in all, with traffic";
    if most.0 == least.0 {
        return Some(format!(
            "Per {one} ({label}) {} uses {} the energy of {}.",
            part.label(group),
            times(&most.1),
            most.0
        ));
    }
    Some(format!(
        "Per {one} ({label}) {} uses {} the energy of the cheapest other kind, {}, and {} that of the dearest, {}.",
        part.label(group),
        times(&most.1),
        most.0,
        times(&least.1),
        least.0
    ))
}

/// A list in words; of a long one how many more.
pub(super) fn names(all: &[String]) -> String {
    let shown = all.get(..MOST_NAMES.min(all.len())).unwrap_or(all);
    let more = all.len() - shown.len();
    let mut parts: Vec<String> = shown.to_vec();
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    // names with settings have commas of their own
    let between = if parts.iter().any(|part| part.contains(',')) { "; " } else { ", " };
    match parts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(between)),
        Some((only, _)) => only.clone(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::group::parts;
    use super::*;

    #[test]
    fn what_cannot_be_told_apart_is_not_ranked() {
        let loaded = fixture::quickstart();
        let all = parts(&loaded.rows);
        let said = argument(&all[0]);
        assert_eq!(
            said,
            [
                "Of 3 configurations lstm has the lowest mean, bits per byte 2.28 [2.15, 2.41]; 1 seed cannot rank them, \
                 3 could.",
                "bim has 2.34 [2.21, 2.47], +0.060 [+0.060, +0.060] from the best, paired by seed.",
            ]
        );
        let loaded = fixture::sweep();
        let all = parts(&loaded.rows);
        let said = argument(&all[0]);
        assert_eq!(
            said[0],
            "Of 7 configurations bim, lambda 0.0, target 0.5 has the lowest mean, bits per byte 2.020 [1.995, 2.045]; each of the others \
             can be told from it."
        );
        assert_eq!(said.len(), 1, "{said:?}");
    }

    #[test]
    fn what_has_too_few_seeds_is_not_called_worse() {
        let mut loaded = fixture::sweep();
        loaded.rows.retain(|row| row.model != "lstm" || row.seed == 1);
        let said = argument(&parts(&loaded.rows)[0]);
        let end = "each of the others can be told from it (1 with fewer than 3 seeds not compared).";
        assert!(said[0].ends_with(end), "{said:?}");
    }

    /// Where nothing can be told apart, that is what is said, and the names of some are not.
    #[test]
    fn where_nothing_can_be_told_apart_that_is_said() {
        let said = |third: f64| {
            let mut loaded = fixture::sweep();
            loaded.rows.retain(|row| row.config.get("model.lambda").is_none_or(|lambda| lambda == "0.0"));
            for row in loaded.rows.iter_mut().filter(|row| row.metric.as_deref() == Some("bits_per_byte")) {
                let noise = [0.0, 0.3, -0.3][(row.seed - 1) as usize];
                row.value = Some(if row.model == "lstm" { third - noise } else { 2.0 + noise });
            }
            argument(&parts(&loaded.rows)[0]).swap_remove(0)
        };
        let all = said(2.0);
        assert!(all.ends_with("; none of the others can be told from it at 5 %, over all pairs at once."), "{all}");
        let one = said(900.0);
        assert!(one.ends_with(" cannot be told from it at 5 %, over all pairs at once."), "{one}");
    }

    #[test]
    fn nothing_is_said_of_what_was_not_measured() {
        let loaded = fixture::all_failed();
        assert_eq!(argument(&parts(&loaded.rows)[0]), ["No cell of this task has a score yet."]);
    }

    #[test]
    fn long_lists_are_cut() {
        let all: Vec<String> = ["a", "b", "c", "d", "e", "f"].map(String::from).into();
        assert_eq!(names(&all), "a, b, c, d and 2 more");
        let swept = ["a, rate 1", "a, rate 2", "b"].map(String::from);
        assert_eq!(names(&swept), "a, rate 1; a, rate 2 and b");
        assert_eq!((names(&all[..2]), names(&all[..1])), ("a and b".into(), "a".into()));
    }
}
