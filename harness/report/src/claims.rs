//! What the paper claims, and what these results say of it: a verdict for each claim with the number behind it.
//!
//! One configuration stands for each kind of model: the first of that kind in the grid, swept values in ascending order (of BIM,
//! the first with spikes), so that no result chooses it; energy is held against the reference that the grid names or else against the
//! best of the others. Nothing is concluded from fewer than three seeds.

use std::collections::BTreeMap;

use statistics::estimate::{Estimate, paired_difference};
use statistics::paired::by_seed;
use statistics::{Better, adjust::holm};

use super::catalogue::significant;
use super::group::{Group, Part};
use super::look::{Kind, OURS};
use super::model::{Claim, Evidence, Outcome, Section, Table};
use super::paper::Paper;
use super::tables::{self, metric_info};
use super::{energy, memory, time_differences};

/// Seeds below which nothing is concluded.
const FEWEST_SEEDS: usize = 3;
/// Chance of calling models different that are not, over all models that one is held against.
const LEVEL: f64 = 0.05;
/// Shares below it are none: single zeros that came about by chance.
const LEAST_SHARE: f64 = 1e-4;

/// What the results of one section say of a claim: what it says, in words, and the number.
type Said = (Outcome, String, String);

/// A claim, and how it is measured.
struct Asked<'a> {
    statement: &'static str,
    place: &'static str,
    basis: &'static str,
    grids: &'static [&'static str],
    say: &'a dyn Fn(&Part, &Section) -> Option<Said>,
}

/// Behind what was decided on generated data alone.
const ON_GENERATED: &str = " on generated data";

/// Grids of the paper's tables.
const TABLES: &[&str] = &["table1_language", "table2_speech", "table3_biomedical"];

/// Every claim, whether anything here is about it or not.
pub(super) fn claims(parts: &[Part], sections: &[Section], paper: &Paper) -> Vec<Claim> {
    let all = [
        Asked {
            statement: "BIM reaches the quality that the paper publishes",
            place: "Tables 1 to 3",
            basis: "mean with its 95 % interval over seeds, against the published value and what is allowed on its worse side",
            grids: TABLES,
            say: &|part, _| published(part, paper),
        },
        Asked {
            statement: "BIM stands where the paper's tables put it among the other models",
            place: "Tables 1 to 3",
            basis: "BIM minus each of them, paired by seed",
            grids: TABLES,
            say: &|part, _| order(part, paper),
        },
        Asked {
            statement: "Learning online takes memory that does not grow with length, where that of backpropagation through time grows",
            place: "section 4.5",
            basis: "peak memory of a training step at the shortest and at the longest length",
            grids: &["memory_vs_length"],
            say: &|part, _| memory::claim(part).map(|said| with_seeds(part, said)),
        },
        Asked {
            statement: "BIM leaves out more operations than networks without spikes",
            place: "section 4.5",
            basis: "share of the products of a dense forward pass that zeros leave out, those of states and attention among them, each spike of a burst counted; against the network without spikes whose zeros leave out most, where one has any",
            grids: &["operating_points"],
            say: &|part, _| sparsity(part),
        },
        Asked {
            statement: "BIM saves energy",
            place: "section 4.5",
            basis: "modelled from counted operations, not measured: what it uses per step of what the reference uses, and of what is used at each price by the cheapest network without spikes that is not told to be worse; the less favourable counts",
            grids: &["energy", "operating_points"],
            say: &|part, _| saved(part),
        },
        Asked {
            statement: "Updates decay with the spike time difference as the STDP window does",
            place: "section 4.6",
            basis: "exponentials fitted to the mean update at each difference",
            grids: &["stdp_window"],
            say: &|part, section| {
                let table: Option<&Table> = section.tables.iter().find(|table| time_differences::is_table(table));
                table.map(|table| with_seeds(part, time_differences::claim(table)))
            },
        },
    ];
    let claim = |asked: Asked| {
        let evidence: Vec<Evidence> = parts
            .iter()
            .zip(sections)
            .filter_map(|(part, section)| {
                let (verdict, mut words, number) = (asked.say)(part, section)?;
                let first =
                    parts.iter().take_while(|other| !std::ptr::eq(*other, part)).find(|other| same_cells(part, other));
                let number = first.map_or_else(
                    || number.clone(),
                    |other| format!("{number} (the cells of BIM are those of {})", other.experiment),
                );
                if part.generated() && matches!(verdict, Outcome::Held | Outcome::DidNotHold | Outcome::InPart) {
                    words += ON_GENERATED;
                }
                Some(Evidence { section: section.id.clone(), task: short(part, parts), verdict, words, number })
            })
            .collect();
        let (verdict, words) = together(&evidence);
        Claim {
            statement: asked.statement.into(),
            place: asked.place.into(),
            basis: asked.basis.into(),
            verdict,
            words,
            evidence,
            grids: asked.grids.iter().map(|grid| (*grid).to_owned()).collect(),
        }
    };
    all.into_iter().map(claim).collect()
}

/// Whether BIM's runs of two sections are the same cells, which are no second evidence.
fn same_cells(a: &Part, b: &Part) -> bool {
    let cells = |part: &Part| -> Option<Vec<String>> {
        let cells: Vec<String> = part.first_of(OURS)?.completed().map(|run| run.head.cell.clone()).collect();
        (!cells.is_empty()).then_some(cells)
    };
    a.task == b.task && cells(a).is_some_and(|own| cells(b) == Some(own))
}

/// The task, with the experiment and the scale where there are several.
pub(super) fn short(part: &Part, parts: &[Part]) -> String {
    let mut text = part.task.to_owned();
    if parts.iter().any(|other| other.experiment != part.experiment) {
        text = format!("{}, {text}", part.experiment);
    }
    if parts.iter().any(|other| other.scale != part.scale) {
        text = format!("{text}, {}", part.scale);
    }
    text
}

/// What was said without looking at seeds, unless a configuration has too few of them.
fn with_seeds(part: &Part, (outcome, words, number): Said) -> Said {
    let fewest =
        part.groups.iter().map(|group| group.completed().count()).filter(|seeds| *seeds > 0).min().unwrap_or(0);
    match too_few(fewest) {
        Some(words) => (Outcome::Undecided, words, number),
        None => (outcome, words, number),
    }
}

/// What the evidence of all tasks says together: what is decided counts, and the words say of how many tasks.
fn together(evidence: &[Evidence]) -> (Outcome, String) {
    let count = |outcome: Outcome| evidence.iter().filter(|e| e.verdict == outcome).count();
    let (held, not, partly) = (count(Outcome::Held), count(Outcome::DidNotHold), count(Outcome::InPart));
    let (decided, all) = (held + not + partly, evidence.len());
    let verdict = match (held, not, partly) {
        (0, 0, 0) if count(Outcome::NotMeasured) == all => Outcome::NotMeasured,
        (0, 0, 0) if count(Outcome::NotComparable) == all => Outcome::NotComparable,
        (0, 0, 0) => Outcome::Undecided,
        (_, 0, 0) => Outcome::Held,
        (0, _, 0) => Outcome::DidNotHold,
        _ => Outcome::InPart,
    };
    // what all tasks say alike is said once
    if let Some(first) = evidence.first().filter(|first| evidence.iter().all(|e| e.words == first.words)) {
        return (verdict, first.words.clone());
    }
    // what was decided on generated data alone is said to be
    let is_decided = |e: &&Evidence| matches!(e.verdict, Outcome::Held | Outcome::DidNotHold | Outcome::InPart);
    let generated = decided > 0 && evidence.iter().filter(is_decided).all(|e| e.words.ends_with(ON_GENERATED));
    if decided > 0 && decided < all {
        let on = if generated { " (generated data)" } else { "" };
        let rest = if count(Outcome::Undecided) == all - decided { "undecided" } else { "undecided or not comparable" };
        return (verdict, format!("{} on {decided} of {all}{on}, the rest {rest}", verdict.words()));
    }
    let on = if generated { ON_GENERATED } else { "" };
    (verdict, format!("{}{on}", verdict.words()))
}

/// Whether the published value of the paper's model was reproduced.
fn published(part: &Part, paper: &Paper) -> Option<Said> {
    let group = part.first_of(OURS)?;
    let published = paper.published(part.family, OURS);
    let first = published.first()?;
    let (outcome, words) = tables::verdict(part, group, &published);
    let metric = if group.metric(first.name, Some(part.split)).estimate().is_some() {
        first.name
    } else {
        part.main_metrics().first().copied()?
    };
    let info = metric_info(part, metric);
    let e = group.metric(metric, Some(part.split)).estimate()?;
    let own = format!("{} {} {}", part.label(group), info.label, info.estimate(&e));
    // what is not the published data stands beside no published value
    let number = if part.identity().has_name() {
        format!(
            "{own}, published {} {} ({} is allowed)",
            first.metric.label,
            first.metric.text(first.value),
            first.metric.allowance()
        )
    } else {
        own
    };
    Some((outcome, words, number))
}

/// Whether the model is better than the paper's others where the paper says so, and worse where it says that.
fn order(part: &Part, paper: &Paper) -> Option<Said> {
    let group = part.first_of(OURS)?;
    let own = *paper.published(part.family, OURS).first()?;
    let metric = *part.main_metrics().first()?;
    let info = metric_info(part, metric);
    let better = info.better?;
    let values = |group: &Group| group.by_seed(metric, Some(part.split));
    let of_kind = |kind: &str| {
        let theirs = *paper.published(part.family, kind).first()?;
        let other = part.first_of(kind)?;
        Some((
            kind.to_owned(),
            is_better(own.value, theirs.value, own.metric.better),
            by_seed(&values(group), &values(other))?,
        ))
    };
    let others: Vec<_> = part.kinds_but(OURS).into_iter().filter_map(of_kind).collect();
    let seeds = others.iter().map(|(_, _, paired)| paired.difference.n).min()?;
    let adjusted = holm(&others.iter().map(|(_, _, paired)| paired.t.unwrap_or(1.0)).collect::<Vec<f64>>());
    let (mut as_published, mut otherwise, mut texts) = (0, 0, Vec::new());
    for ((kind, says_better, paired), p) in others.iter().zip(adjusted) {
        let d = &paired.difference;
        let told = p < LEVEL && seeds >= FEWEST_SEEDS;
        if told && is_better(d.mean, 0.0, better) == *says_better {
            as_published += 1;
        } else if told {
            otherwise += 1;
        }
        let mark = if told { "" } else { " (not told apart)" };
        let mark = if seeds < FEWEST_SEEDS { "" } else { mark };
        texts.push(format!(
            "{kind} {}{mark}",
            info.difference(&Estimate { interval: None, ..*d }).replace(" (1 seed)", "")
        ));
    }
    let better = if better == Better::Lower { "less is better" } else { "more is better" };
    let number = format!("{}, {} ({better}): {}", part.label(group), info.label, texts.join(", "));
    let outcome = match (as_published, otherwise) {
        (0, 0) => Outcome::Undecided,
        (_, 0) if as_published == others.len() => Outcome::Held,
        (_, 0) => Outcome::InPart,
        (0, _) => Outcome::DidNotHold,
        _ => Outcome::InPart,
    };
    // a table is about its data, scale and split
    if let Some(why) = tables::not_comparable(part) {
        return Some((Outcome::NotComparable, format!("not comparable{why}"), number));
    }
    let words = match outcome {
        Outcome::Undecided => too_few(seeds).unwrap_or_else(|| outcome.words().into()),
        Outcome::InPart | Outcome::DidNotHold if others.len() > 1 => {
            format!("{}: {as_published} of {} as published, {otherwise} the other way", outcome.words(), others.len())
        }
        Outcome::Held | Outcome::InPart | Outcome::DidNotHold | Outcome::NotComparable | Outcome::NotMeasured => {
            outcome.words().into()
        }
    };
    Some((outcome, words, number))
}

fn is_better(a: f64, b: f64, better: Better) -> bool {
    match better {
        Better::Lower => a < b,
        Better::Higher => a > b,
    }
}

/// Why nothing is concluded, if it is for want of seeds.
fn too_few(seeds: usize) -> Option<String> {
    (seeds < FEWEST_SEEDS).then(|| format!("{seeds} {}, no verdict", if seeds == 1 { "seed" } else { "seeds" }))
}

/// Share of the multiplications of a dense forward pass that zeros leave out, by seed.
fn left_out(group: &Group) -> BTreeMap<u64, f64> {
    let of = |name: &str| group.by_seed(name, Some(metrics::TRAIN_SPLIT));
    let (macs, acs, dense) = (of("macs_forward"), of("acs_forward"), of("macs_dense"));
    let share = |(seed, dense): (&u64, &f64)| Some((*seed, 1.0 - (macs.get(seed)? + acs.get(seed)?) / dense));
    dense.iter().filter(|(_, dense)| **dense > 0.0).filter_map(share).collect()
}

/// Whether spikes leave out more than the zeros of the network that comes closest.
fn sparsity(part: &Part) -> Option<Said> {
    let group = part.first_of(OURS)?;
    let own = left_out(group);
    let kinds = part.kinds_but(OURS).into_iter().filter(|kind| !Kind::of(kind).spikes());
    let others = kinds.filter_map(|kind| part.first_of(kind));
    let mean = |values: &BTreeMap<u64, f64>| values.values().sum::<f64>() / values.len().max(1) as f64;
    let measured = others.map(|other| (other, left_out(other))).filter(|(_, shares)| !shares.is_empty());
    let (closest, theirs) = measured.max_by(|a, b| mean(&a.1).total_cmp(&mean(&b.1)))?;
    let difference = paired_difference(&own, &theirs)?;
    let percent = |share: f64| {
        if share.abs() < LEAST_SHARE { "none".to_owned() } else { format!("{} %", significant(100.0 * share, 3)) }
    };
    let own_text = format!("{} leaves out {}", part.label(group), percent(mean(&own)));
    // who has no zeros leaves out nothing by construction
    if mean(&theirs).abs() < LEAST_SHARE {
        let words = "not comparable: no other network here has zeros to leave out".to_owned();
        return Some((Outcome::NotComparable, words, format!("{own_text}, the others none")));
    }
    let number =
        format!("{own_text}, of the others {} leaves out most, {}", part.label(closest), percent(mean(&theirs)));
    let outcome = by_interval(&difference, 0.0, Better::Higher);
    Some((outcome, too_few(difference.n).unwrap_or_else(|| outcome.words().into()), number))
}

/// Whether all of an interval is on the better side of a value, none of it, or neither.
fn by_interval(e: &Estimate, value: f64, better: Better) -> Outcome {
    match e.interval.filter(|_| e.n >= FEWEST_SEEDS) {
        Some((low, high)) if is_better(low, value, better) && is_better(high, value, better) => Outcome::Held,
        Some((low, high)) if !is_better(low, value, better) && !is_better(high, value, better) => Outcome::DidNotHold,
        Some(_) | None => Outcome::Undecided,
    }
}

/// What the paper's model uses at each price of what others use.
struct Against<'a> {
    /// Who they are, in words.
    whom: String,
    /// Name of the price, ratio, and the network whose price it is.
    ratios: Vec<(&'static str, Estimate, &'a Group<'a>)>,
}

/// Whether every price of the paper's model is below those of what it is held against; what is said is the less favourable.
fn saved(part: &Part) -> Option<Said> {
    let group = part.first_of(OURS)?;
    let against: Vec<(Said, usize)> =
        opponents(part, group)?.iter().filter_map(|against| priced(part, against)).collect();
    let numbers: Vec<&str> = against.iter().map(|((_, _, number), _)| number.as_str()).collect();
    let number = format!("{} against {}", part.label(group), numbers.join("; "));
    // of two in part, the one by which less is saved
    let favour = |((outcome, _, _), saved): &(Said, usize)| match outcome {
        Outcome::DidNotHold => (0, *saved),
        Outcome::InPart => (1, *saved),
        Outcome::Undecided | Outcome::NotComparable | Outcome::NotMeasured => (2, *saved),
        Outcome::Held => (3, *saved),
    };
    let ((outcome, words, _), _) = against.into_iter().min_by_key(favour)?;
    Some((outcome, words, number))
}

/// The reference, and at each price the cheapest network without spikes that is not told to be worse than the paper's model: a dear
/// reference saves nobody anything, a rival is cheap at some prices and dear at others, and what is cheap because it learns less is none.
fn opponents<'a>(part: &'a Part, group: &Group) -> Option<Vec<Against<'a>>> {
    let metric = *part.main_metrics().first()?;
    let better = metric_info(part, metric).better?;
    let kinds = part.kinds_but(OURS).into_iter().filter(|kind| !Kind::of(kind).spikes());
    let rivals = not_worse(part, group, kinds.filter_map(|kind| part.first_of(kind)).collect(), metric, better);
    let of = |other: &'a Group<'a>| energy::ratios(group, other).into_iter().map(move |(price, e)| (price, e, other));
    let mut cheapest: Vec<(&'static str, Estimate, &Group)> = Vec::new();
    for (price, e, other) in rivals.into_iter().flat_map(of) {
        match cheapest.iter_mut().find(|found| found.0 == price) {
            Some(found) if found.1.mean < e.mean => *found = (price, e, other),
            Some(_) => {}
            None => cheapest.push((price, e, other)),
        }
    }
    let whom = "the cheapest without spikes that is not told to be worse".to_owned();
    let reference = part.reference().filter(|other| !std::ptr::eq(*other, group));
    let Some(reference) = reference else { return Some(vec![Against { whom, ratios: cheapest }]) };
    let name = part.label(reference);
    let name = if name == "reference" { "the reference".to_owned() } else { format!("{name}, the reference") };
    if !cheapest.is_empty() && cheapest.iter().all(|(_, _, other)| std::ptr::eq(*other, reference)) {
        return Some(vec![Against { whom: format!("{name}, and {whom}"), ratios: cheapest }]);
    }
    let all = [Against { whom: name, ratios: of(reference).collect() }, Against { whom, ratios: cheapest }];
    Some(all.into_iter().filter(|against| !against.ratios.is_empty()).collect())
}

/// Those of some networks that are not told to be worse than a group: paired by seed, adjusted over all of them as where they are ranked.
fn not_worse<'a>(
    part: &Part,
    group: &Group,
    others: Vec<&'a Group<'a>>,
    metric: &str,
    better: Better,
) -> Vec<&'a Group<'a>> {
    let values = |group: &Group| group.by_seed(metric, Some(part.split));
    let own = values(group);
    let paired: Vec<_> = others.into_iter().filter_map(|other| Some((other, by_seed(&own, &values(other))?))).collect();
    let adjusted = holm(&paired.iter().map(|(_, paired)| paired.t.unwrap_or(1.0)).collect::<Vec<f64>>());
    let is_worse = |difference: &Estimate, p: f64| {
        p < LEVEL && difference.n >= FEWEST_SEEDS && is_better(difference.mean, 0.0, better)
    };
    let kept = paired.into_iter().zip(adjusted).filter(|((_, paired), p)| !is_worse(&paired.difference, *p));
    kept.map(|((other, _), _)| other).collect()
}

/// Whether every price is below those that it is held against, and by how many it is.
fn priced(part: &Part, against: &Against) -> Option<(Said, usize)> {
    let ratios = &against.ratios;
    let seeds = ratios.iter().map(|(_, e, _)| e.n).min()?;
    let outcomes: Vec<Outcome> = ratios.iter().map(|(_, e, _)| by_interval(e, 1.0, Better::Lower)).collect();
    let count = |outcome: Outcome| outcomes.iter().filter(|o| **o == outcome).count();
    let (held, not) = (count(Outcome::Held), count(Outcome::DidNotHold));
    let outcome = match (held, not) {
        (0, 0) => Outcome::Undecided,
        (_, 0) if held == outcomes.len() => Outcome::Held,
        (0, _) if not == outcomes.len() => Outcome::DidNotHold,
        (0, _) => Outcome::Undecided,
        _ => Outcome::InPart,
    };
    // the rival is named at each price where it is not the same at all of them
    let several = ratios.windows(2).any(|pair| !std::ptr::eq(pair[0].2, pair[1].2));
    let only = ratios.first().filter(|_| !several).map(|(_, _, other)| part.label(other));
    let words = match outcome {
        Outcome::InPart => {
            let rest = outcomes.len() - held - not;
            let rest = if rest == 0 { String::new() } else { format!(", not told apart by {rest}") };
            let whom = only.as_ref().unwrap_or(&against.whom);
            format!("less by {held} of {} prices, more by {not}{rest}, than {whom}", outcomes.len())
        }
        Outcome::Undecided => too_few(seeds).unwrap_or_else(|| outcome.words().into()),
        Outcome::Held | Outcome::DidNotHold | Outcome::NotComparable | Outcome::NotMeasured => outcome.words().into(),
    };
    let text = |(label, e, other): &(&'static str, Estimate, &Group)| {
        let whose = if several { format!(" ({})", part.label(other)) } else { String::new() };
        format!("{label} {}×{whose}", significant(e.mean, 3))
    };
    let texts: Vec<String> = ratios.iter().map(text).collect();
    let only = only.filter(|name| name != "reference" && !against.whom.starts_with(name.as_str()));
    let whom = only.map_or_else(|| against.whom.clone(), |name| format!("{name}, {}", against.whom));
    Some(((outcome, words, format!("{whom}: {}", texts.join(", "))), held))
}

#[cfg(test)]
mod tests;
