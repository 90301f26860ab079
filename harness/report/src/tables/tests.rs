//! Tests of the main tables.

use super::super::fixture;
use super::super::group::parts;
use super::*;

/// Verdict on bim's perplexity per word (published: 20.1) from one value per seed.
fn verdict_of(values: &[f64], change: impl Fn(&mut ResultRow)) -> String {
    let rows: Vec<ResultRow> = (1u64..)
        .zip(values)
        .map(|(seed, &value)| {
            let mut row = fixture::cell("bim", seed);
            (row.scale, row.split) = ("paper".into(), Some("test".into()));
            (row.metric, row.value) = (Some("perplexity_per_word".into()), Some(value));
            change(&mut row);
            row
        })
        .collect();
    let parts = parts(&rows);
    let paper = Paper::embedded().unwrap();
    verdict(&parts[0], &parts[0].groups[0], &paper.published("language", "bim")).1
}

#[test]
fn verdicts_are_for_the_published_data_alone() {
    let with = |identity: Option<&str>| {
        let identity = identity.map(str::to_owned);
        verdict_of(&[19.8, 20.3, 20.4], |row| row.data_identity.clone_from(&identity))
    };
    assert_eq!(with(Some("published: x")), "reproduced");
    assert_eq!(with(Some("subset: x")), "not comparable: a subset of the data");
    assert_eq!(with(Some("generated: x")), "not comparable: generated data");
    assert_eq!(with(Some("unverified: x")), "not comparable: unverified data");
    assert_eq!(with(None), "not comparable: unverified data", "a file of a version before");
    let mut row = fixture::cell("bim", 1);
    (row.split, row.metric, row.value) = (Some("test".into()), Some("bits_per_byte".into()), Some(2.0));
    row.data_identity = Some("unverified: the train split is not the published one".into());
    let rows = [row];
    let parts = parts(&rows);
    let table = results(&parts[0], &Paper::embedded().unwrap(), "x");
    assert!(table.rows[0].iter().all(|cell| !cell.text.contains("20.1")), "{:?}", table.rows[0]);
    let text = &table.caption;
    assert!(text.starts_with("Unverified data, as given (the train split is not the published one)"), "{text}");
    assert!(!text.contains("WikiText"), "{text}");
}

#[test]
fn verdicts_are_careful() {
    let set = |path: &'static str, value: &'static str| {
        move |row: &mut ResultRow| drop(row.config.insert(path.into(), value.into()))
    };
    assert_eq!(verdict_of(&[19.8, 20.3, 20.4], |_| ()), "reproduced");
    assert_eq!(verdict_of(&[15.0, 15.1, 15.2], |_| ()), "reproduced", "better than published");
    assert_eq!(verdict_of(&[24.0, 25.0, 24.5], |_| ()), "not reproduced");
    assert_eq!(verdict_of(&[20.1, 20.1], |_| ()), "underpowered");
    // 20.1 has 4.329 bits, 2 % more of them are 21.34
    let few = "underpowered: about 5 seeds would tell";
    assert_eq!(verdict_of(&[21.2, 21.25, 21.3], |_| ()), few, "the interval passes the margin");
    assert_eq!(verdict_of(&[21.2, 21.21, 21.22], |_| ()), "reproduced", "within the margin");
    assert_eq!(verdict_of(&[21.5, 21.55, 21.6], |_| ()), "not reproduced", "outside of it");
    let many = "underpowered: about 465 seeds would tell";
    assert_eq!(verdict_of(&[10.0, 20.0, 40.0], |_| ()), many, "spread must not help");
    assert_eq!(verdict_of(&[20.0, 20.1, 20.2], |row| row.scale = "sample".into()), "not comparable at this scale");
    assert_eq!(
        verdict_of(&[20.0, 20.1, 20.2], set("task.train_split", "valid")),
        "not comparable: other training split"
    );
    assert_eq!(
        verdict_of(&[20.0, 20.1, 20.2], set("train.eval_limit", "5000")),
        "not comparable: scored on a part (train.eval_limit)"
    );
    for changes in ["task.drift.0.gain", "task.domains.0.name"] {
        assert_eq!(verdict_of(&[20.0, 20.1, 20.2], set(changes, "2")), "not comparable: the stream changes");
    }
    assert_eq!(verdict_of(&[20.0, 20.1, 20.2], set("task.generate", "100")), "not comparable: generated data");
    assert_eq!(verdict_of(&[20.0, 20.1, 20.2], |row| row.outcome = "failed".into()), NOT_MEASURED);
}

/// Configurations with as many bytes in segments of other lengths: the table says what each made of them.
#[test]
fn updates_data_and_segments_are_shown_where_they_differ() {
    let columns = |segments: [&str; 2], updates: u64| -> Vec<(String, Vec<String>)> {
        let row = |(model, segment): (&str, &str), updates: u64| {
            let mut row = fixture::config(fixture::cell(model, 1), &[("train.segment", segment)]);
            (row.split, row.metric, row.value) = (Some("test".into()), Some("bits_per_byte".into()), Some(2.0));
            row.updates = updates;
            row
        };
        let rows = [row(("bim", segments[0]), 400), row(("lstm", segments[1]), updates)];
        let parts = parts(&rows);
        let table = results(&parts[0], &Paper::embedded().unwrap(), "x");
        let texts = |i: usize| table.rows.iter().map(|row| row[i].text.clone()).collect();
        table.columns.iter().enumerate().map(|(i, column)| (column.label.clone(), texts(i))).collect()
    };
    let found = columns(["32", "1048576"], 100);
    let of = |label: &str| found.iter().find(|column| column.0 == label).map(|column| column.1.join(" and "));
    assert_eq!(of("updates").as_deref(), Some("400 and 100"));
    assert_eq!(of("tokens seen").as_deref(), Some("100,000 and 100,000"));
    assert_eq!(of("tokens per segment").as_deref(), Some("32 and whole recordings"));
    assert!(columns(["32", "32"], 400).iter().all(|column| column.0 != "updates"), "nothing differs");
    assert!(columns(["32", "64"], 400).iter().any(|column| column.0 == "updates"), "segments differ");
}

/// A cell that ran out of time was scored: the table shows it, marked, and compares it with nothing.
#[test]
fn a_score_out_of_time_is_shown_and_does_not_count() {
    let row = |model: &str, seed: u64, outcome: &str, value: f64| {
        let mut row = fixture::cell(model, seed);
        (row.split, row.metric, row.value) = (Some("test".into()), Some("bits_per_byte".into()), Some(value));
        row.outcome = outcome.into();
        row
    };
    let mut rows: Vec<_> =
        (1..=3).flat_map(|s| [row("bim", s, "completed", 2.5), row("lstm", s, "timed_out", 1.0)]).collect();
    rows.push(row("rnn", 1, "completed", 2.0));
    rows.push(row("rnn", 2, "timed_out", 9.0));
    let parts = parts(&rows);
    let table = results(&parts[0], &Paper::embedded().unwrap(), "x");
    let text = |i: usize| table.rows[i][1].text.as_str();
    assert_eq!(
        (text(0), text(1), text(2)),
        ("2.500 [2.500, 2.500]", "1.000, 1.000, 1.000 (timed out)", "2.000 (1 seed)")
    );
    assert!(table.rows.iter().all(|row| !row[1].best), "nothing to compare with");
    assert!(table.notes.iter().any(|note| note.starts_with("(timed out): ")), "{:?}", table.notes);
    assert!(parts[0].seeds("bits_per_byte")[1].is_empty());
}

/// Failures are pointed to where there are some: cells that nobody asked for are none.
#[test]
fn failures_are_pointed_to_where_there_are_some() {
    let notes = |outcome: &str| {
        let mut other = fixture::cell("lstm", 1);
        other.outcome = outcome.into();
        let rows = [fixture::cell("bim", 1), other];
        results(&parts(&rows)[0], &Paper::embedded().unwrap(), "x").notes
    };
    let has = |outcome: &str, note: &str| notes(outcome).iter().any(|other| other == note);
    assert!(has("skipped", "Only completed cells count."));
    assert!(has(
        "diverged",
        "Only completed cells count; those that were begun and did not complete are listed under Failures."
    ));
    assert!(!notes("completed").iter().any(|note| note.starts_with("Only completed")));
}

#[test]
fn the_grid_that_chose_the_rates_is_named() {
    let pairs = [("report.rates_from", "baseline_learning_rates.sample"), ("report.rates_tried", "6")];
    let rows = [fixture::config(fixture::cell("bim", 1), &pairs)];
    let parts = parts(&rows);
    let table = results(&parts[0], &Paper::embedded().unwrap(), "x");
    let expected = "Learning rates: chosen by `baseline_learning_rates.sample`, which tries the same 6 for each model.";
    assert!(table.notes.iter().any(|note| note == expected), "{:?}", table.notes);
}

#[test]
fn what_cannot_be_told_from_the_best_is_marked_and_one_lucky_seed_is_not() {
    let seeds = |values: &[f64]| (1..).zip(values.iter().copied()).collect::<BTreeMap<u64, f64>>();
    let marked = |models: &[&[f64]], better| {
        let mut cells = vec![Cell::new("x"); models.len()];
        let models: Vec<_> = models.iter().map(|model| seeds(model)).collect();
        let any = mark_best(&mut cells, &models, better);
        let best: Vec<bool> = cells.iter().map(|cell| cell.best).collect();
        assert_eq!(any, best.contains(&true));
        best
    };
    let (good, as_good, bad) = ([0.9, 0.91, 0.92], [0.901, 0.909, 0.922], [0.5, 0.52, 0.51]);
    assert_eq!(marked(&[&good, &bad, &as_good], Some(Better::Higher)), [true, false, true]);
    assert_eq!(marked(&[&good, &bad], Some(Better::Lower)), [false, true]);
    assert_eq!(marked(&[&[0.9, 0.2, 0.3], &[0.4, 0.5, 0.45]], Some(Better::Higher)), [true, true], "one lucky seed");
    assert_eq!(marked(&[&[0.9, 0.91], &[0.5, 0.51]], Some(Better::Higher)), [false, false], "two seeds");
    assert_eq!(marked(&[&good, &bad], None), [false, false]);
    assert_eq!(marked(&[&good, &[]], Some(Better::Higher)), [false, false], "nothing to compare with");
}
