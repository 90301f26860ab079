//! Tests of the verdicts on claims.

use super::super::group::parts;
use super::super::{Loaded, ResultRow, compute, fixture};
use super::*;
use Outcome::{DidNotHold, Held, InPart, NotComparable, NotMeasured, Undecided};

/// A cell with metrics of the test part and of training.
fn rows(model: &str, seed: u64, test: &[(&str, f64)], train: &[(&str, f64)]) -> Vec<ResultRow> {
    let cell = fixture::config(fixture::cell(model, seed), &[("energy", "prices")]);
    let cell = ResultRow { scale: "paper".into(), ..cell };
    let row = |split: &str, (name, value): &(&str, f64)| ResultRow {
        split: Some(split.into()),
        metric: Some((*name).into()),
        value: Some(*value),
        ..cell.clone()
    };
    test.iter().map(|m| row("test", m)).chain(train.iter().map(|m| row(metrics::TRAIN_SPLIT, m))).collect()
}

fn priced(model: &str, seed: u64, bits: f64, synaptic: f64, forward: f64, kept: f64) -> Vec<ResultRow> {
    let jitter = 1.0 + 0.01 * seed as f64;
    rows(
        model,
        seed,
        &[("bits_per_byte", bits * jitter)],
        &[
            ("energy_synaptic_pj", synaptic * jitter),
            ("energy_forward_pj", forward),
            ("op_coverage", 1.0),
            ("energy_coverage_forward", 1.0),
            ("macs_forward", kept),
            ("acs_forward", 0.0),
            ("macs_dense", 100.0),
        ],
    )
}

fn claims_of(rows: Vec<ResultRow>) -> Vec<Claim> {
    compute(&Loaded { rows, ..Loaded::default() }, &Paper::embedded().unwrap()).claims
}

#[test]
fn three_seeds_decide_and_two_do_not() {
    let all = |seeds: u64| {
        let of = |seed| {
            [
                priced("bim", seed, 2.0, 10.0, 300.0, 20.0),
                priced("lstm", seed, 2.5, 100.0, 200.0, 99.0),
                priced("mamba", seed, 1.9, 90.0, 210.0, 98.0),
            ]
        };
        claims_of((1..=seeds).flat_map(of).flatten().collect())
    };
    let verdicts = |claims: &[Claim]| claims.iter().map(|c| c.verdict).collect::<Vec<_>>();
    let three = all(3);
    // better than the LSTM and worse than Mamba, as in table 1; fewer operations; cheaper by one price, dearer by the other
    assert_eq!(verdicts(&three), [NotMeasured, Held, NotMeasured, Held, InPart, NotMeasured], "{three:#?}");
    assert_eq!(three[4].evidence[0].words, "less by 1 of 2 prices, more by 1, than mamba");
    assert!(
        three[4].evidence[0]
            .number
            .contains("bim against mamba, the cheapest without spikes that is not told to be worse: "),
        "{:?}",
        three[4]
    );
    assert!(three[4].evidence[0].number.contains("products 0.11×, forward 1.43×"), "{:?}", three[4]);
    assert!(
        three[3].evidence[0].number.contains("bim leaves out 80.0 %")
            && three[3].evidence[0].number.contains("of the others mamba leaves out most, 2.00 %")
    );
    let two = all(2);
    assert_eq!(verdicts(&two), [NotMeasured, Undecided, NotMeasured, Undecided, Undecided, NotMeasured]);
    assert_eq!(two[1].evidence[0].words, "2 seeds, no verdict");
}

/// The paper's tables are about real data at their scale; what is counted is measured on any, and says on which.
#[test]
fn generated_data_and_other_scales_are_said() {
    let all = |change: &dyn Fn(&mut ResultRow)| {
        let of = |seed| [priced("bim", seed, 2.0, 10.0, 300.0, 20.0), priced("lstm", seed, 2.5, 100.0, 200.0, 99.0)];
        let mut rows: Vec<ResultRow> = (1..=3).flat_map(of).flatten().collect();
        rows.iter_mut().for_each(change);
        claims_of(rows)
    };
    let generated = all(&|row| drop(row.config.insert("task.generate".into(), "100".into())));
    assert_eq!(
        (generated[1].verdict, generated[1].words.as_str()),
        (Outcome::NotComparable, "not comparable: generated data")
    );
    assert_eq!((generated[3].verdict, generated[3].words.as_str()), (Outcome::Held, "held on generated data"));
    let both = all(&|row| {
        row.scale = "sample".into();
        row.data_identity = Some("generated: by this program".into());
    });
    assert_eq!(both[1].words, "not comparable: generated data", "it is at no scale");
    let small = all(&|row| row.scale = "sample".into());
    assert_eq!(small[1].words, "not comparable at this scale");
    assert!(small[1].evidence[0].number.contains("lstm -0.5"), "the number is there: {:?}", small[1]);
}

/// A verdict on memory or on the window of time differences needs seeds as any other.
#[test]
fn what_is_measured_once_decides_nothing() {
    let of = |seeds: u64| {
        let rows: Vec<ResultRow> = (1..=seeds).flat_map(|seed| rows("bim", seed, &[("loss", 1.0)], &[])).collect();
        let parts = parts(&rows);
        with_seeds(&parts[0], (Held, "held".into(), "1 MiB".into()))
    };
    assert_eq!(of(3), (Held, "held".into(), "1 MiB".into()));
    assert_eq!(of(1), (Undecided, "1 seed, no verdict".into(), "1 MiB".into()));
}

/// Beside a published value stands only what comes from the published data.
#[test]
fn generated_data_stand_beside_no_published_value() {
    let number = |change: &dyn Fn(&mut ResultRow)| {
        let of = |seed| rows("bim", seed, &[("perplexity_per_word", 20.0)], &[]);
        let mut rows: Vec<ResultRow> = (1..=3).flat_map(of).collect();
        rows.iter_mut().for_each(change);
        claims_of(rows)[0].evidence[0].number.clone()
    };
    assert!(
        number(&|_| ()).contains(", published perplexity 20.1 (2.0 % of its bits is allowed)"),
        "{}",
        number(&|_| ())
    );
    let generated = number(&|row| row.data_identity = Some("generated: by this program".into()));
    assert!(!generated.contains("published") && generated.contains("20.0"), "{generated}");
    let unverified = number(&|row| row.data_identity = Some("unverified: as given".into()));
    assert!(!unverified.contains("published"), "{unverified}");
}

#[test]
fn the_other_way_round_is_said() {
    let of = |seed| [priced("bim", seed, 2.6, 10.0, 300.0, 99.5), priced("lstm", seed, 2.5, 1.0, 200.0, 99.0)];
    let claims = claims_of((1..=3).flat_map(of).flatten().collect());
    assert_eq!(claims[1].verdict, Outcome::DidNotHold, "worse than the LSTM, which the paper has it beat");
    assert_eq!(claims[3].verdict, Outcome::DidNotHold);
    assert_eq!(claims[4].verdict, Outcome::DidNotHold);
}

#[test]
fn tasks_count_together() {
    let evidence = |verdict| Evidence {
        section: "s".into(),
        task: "t".into(),
        verdict,
        words: format!("{verdict:?}"),
        number: String::new(),
    };
    for (all, expected) in [
        (&[][..], NotMeasured),
        (&[Held, Held], Held),
        (&[Held, DidNotHold], InPart),
        (&[Held, Undecided], Held),
        (&[NotComparable, NotComparable], NotComparable),
        (&[NotComparable, Undecided], Undecided),
        (&[InPart], InPart),
    ] {
        let all: Vec<Evidence> = all.iter().copied().map(evidence).collect();
        assert_eq!(together(&all).0, expected, "{all:?}");
    }
    let words = |all: &[Evidence]| together(all).1;
    assert_eq!(words(&[evidence(Held), evidence(Undecided)]), "held on 1 of 2, the rest undecided");
    let three = [evidence(Held), evidence(Undecided), evidence(NotComparable)];
    assert_eq!(words(&three), "held on 1 of 3, the rest undecided or not comparable");
    let generated = |verdict: Outcome| Evidence { words: format!("{verdict:?}{ON_GENERATED}"), ..evidence(verdict) };
    assert_eq!(words(&[generated(Held), generated(DidNotHold)]), "held in part on generated data");
    assert_eq!(words(&[generated(Held), evidence(DidNotHold)]), "held in part");
    let three = [generated(Held), evidence(NotComparable), evidence(NotComparable)];
    assert_eq!(words(&three), "held on 1 of 3 (generated data), the rest undecided or not comparable");
}

/// A dear reference saves nobody anything: the cheapest that is not worse counts too, and the less favourable is said.
#[test]
fn savings_are_held_against_the_cheapest_that_is_not_worse() {
    let all = |rnn_bits: f64| {
        let of = |seed| {
            [
                priced("bim", seed, 2.0, 10.0, 100.0, 20.0),
                priced("transformer", seed, 1.9, 100.0, 900.0, 99.0),
                priced("rnn", seed, rnn_bits, 20.0, 90.0, 99.0),
            ]
        };
        let mut rows: Vec<ResultRow> = (1..=3).flat_map(of).flatten().collect();
        for row in &mut rows {
            row.config.insert("report.reference".into(), "transformer".into());
        }
        let claim = claims_of(rows).remove(4);
        (claim.verdict, claim.evidence[0].words.clone(), claim.evidence[0].number.clone())
    };
    let (verdict, words, number) = all(1.95);
    assert_eq!((verdict, words.as_str()), (InPart, "less by 1 of 2 prices, more by 1, than rnn"));
    assert_eq!(
        number,
        "bim against transformer, the reference: products 0.10×, forward 0.11×; rnn, the cheapest without spikes that is not told to \
         be worse: products 0.50×, forward 1.11×"
    );
    // worse than BIM: no rival
    let (verdict, _, number) = all(2.5);
    assert_eq!(verdict, Held, "{number}");
    assert!(
        number.contains("transformer, the reference, and the cheapest without spikes that is not told to be worse"),
        "{number}"
    );
}

/// A rival may be cheap at one price and dear at another: each price has its own, named.
#[test]
fn savings_are_held_against_the_cheapest_at_each_price() {
    let of = |seed| {
        [
            priced("bim", seed, 2.0, 10.0, 100.0, 20.0),
            priced("transformer", seed, 1.9, 100.0, 90.0, 99.0),
            priced("rnn", seed, 1.9, 8.0, 900.0, 99.0),
        ]
    };
    let claim = claims_of((1..=3).flat_map(of).flatten().collect()).remove(4);
    assert_eq!(claim.verdict, DidNotHold, "{claim:?}");
    let number = &claim.evidence[0].number;
    assert!(number.ends_with("not told to be worse: products 1.25× (rnn), forward 1.11× (transformer)"), "{number}");
}

/// A network that seems worse and cannot be told to be, as where models are ranked, is a rival too.
#[test]
fn a_rival_is_told_to_be_worse_by_the_test_that_ranks() {
    let all = |kinds: &[&str]| {
        let of = |seed: u64| {
            // about 0.5 worse, by seeds that make p about 0.03 for each: together they are not told apart
            let worse = 2.5 + [0.0, 0.15, -0.15][(seed - 1) as usize];
            let others = kinds.iter().map(move |kind| priced(kind, seed, worse, 8.0, 90.0, 99.0));
            [priced("bim", seed, 2.0, 10.0, 100.0, 20.0)].into_iter().chain(others).collect::<Vec<_>>()
        };
        claims_of((1..=3).flat_map(of).flatten().collect()).remove(4)
    };
    assert!(all(&["lstm"]).evidence.is_empty(), "told to be worse: nobody to hold BIM against");
    assert_eq!(all(&["lstm", "rnn"]).verdict, DidNotHold);
}

/// What leaves out nothing by construction is no rival of what leaves out a little.
#[test]
fn networks_without_zeros_are_not_compared_with() {
    let of = |seed| [priced("bim", seed, 2.0, 10.0, 100.0, 20.0), priced("lstm", seed, 2.5, 100.0, 90.0, 100.0)];
    let claim = claims_of((1..=3).flat_map(of).flatten().collect()).remove(3);
    assert_eq!(
        (claim.verdict, claim.words.as_str()),
        (Outcome::NotComparable, "not comparable: no other network here has zeros to leave out")
    );
}

/// Cells that two grids share are told to be the same, so that nobody counts them twice; those of other settings are not.
#[test]
fn the_same_cells_in_two_grids_are_told() {
    let number = |other: &str| {
        let of = |seed| [priced("bim", seed, 2.0, 10.0, 100.0, 20.0), priced("lstm", seed, 2.5, 100.0, 90.0, 99.0)];
        let first: Vec<ResultRow> = (1..=3).flat_map(of).flatten().collect();
        let second = first.iter().cloned().map(|row| ResultRow {
            experiment: "second".into(),
            cell: format!("{}{other}", row.cell),
            ..row
        });
        let claim = claims_of(first.iter().cloned().chain(second).collect()).remove(3);
        claim.evidence.into_iter().map(|evidence| evidence.number).collect::<Vec<_>>()
    };
    let same = " (the cells of BIM are those of quickstart)";
    let shared = number("");
    assert!(!shared[0].ends_with(same) && shared[1].ends_with(same), "{shared:?}");
    assert!(!number("b")[1].ends_with(same));
}

/// What stands for a kind is the first in the grid, whatever came out of it.
#[test]
fn no_result_chooses_what_is_compared() {
    let mut first = priced("bim", 1, 3.0, 1.0, 1.0, 50.0);
    let mut second = priced("bim", 1, 1.0, 1.0, 1.0, 50.0);
    for row in &mut first {
        row.model = "a".into();
    }
    for row in &mut second {
        row.model = "b".into();
    }
    let rows = [first, second].concat();
    let parts = parts(&rows);
    assert_eq!(parts[0].first_of("bim").unwrap().model, "a");
}
