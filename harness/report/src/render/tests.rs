//! Tests of the formats.

use super::super::{Paper, compute, fixture};
use super::*;

fn report(loaded: &super::super::Loaded) -> Report {
    compute(loaded, &Paper::embedded().unwrap())
}

fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "expected\n{part}\nin\n{text}");
}

#[test]
fn markdown_of_generated_language() {
    let text = render(&report(&fixture::quickstart()), Format::Markdown).unwrap();
    assert_has(
        &text,
        "\
# quickstart

The claims of Bio-Inspired Mamba, arXiv:2409.11263, put to the test.

8 cells were planned, 7 completed.

## What the paper claims, and what these results say

- **not comparable: generated data**: BIM reaches the quality that the paper publishes (Tables 1 to 3; mean with its 95 % \
interval over seeds, against the published value and what is allowed on its worse side)
  - language, not comparable: generated data: bim bits per byte 2.34 [2.21, 2.47]
  - cardio, not comparable: generated data: bim AUC-ROC (macro) 0.810 (1 seed)
- **not comparable: generated data**: BIM stands where the paper's tables put it among the other models (Tables 1 to 3; BIM minus \
each of them, paired by seed)
  - language, not comparable: generated data: bim, bits per byte (less is better): lstm +0.060
  - cardio, not comparable: generated data: bim, AUC-ROC (macro) (more is better): cnn -0.030
- **not measured here**: Learning online takes memory that does not grow with length, where that of backpropagation \
through time grows (section 4.5; to measure it: `harness run experiments/memory_vs_length.yaml`)
",
    );
    assert_has(
        &text,
        "\
## Language modelling (generated data)

Of 3 configurations lstm has the lowest mean, bits per byte 2.28 [2.15, 2.41]; 1 seed cannot rank them, 3 could. \
bim has 2.34 [2.21, 2.47], +0.060 [+0.060, +0.060] from the best, paired by seed. 

### Results

Generated data in the file format of WikiText-103, not WikiText-103: no number here compares with a published one. \
Trains on its train split and evaluates on its test split. Scale mini. \
The text's source has an entropy of 1.900 bits per byte: no model can go below it.

| model | bits per byte | above the floor | seeds | outcome |
|:---|---:|---:|---:|:---|
| bim | 2.34 [2.21, 2.47] | 0.44 | 2 | completed |
| lstm | 2.28 [2.15, 2.41] | 0.38 | 2 | completed |
| rnn | 2.820 (1 seed) | 0.920 | 1 | 1 completed, 1 diverged |

- Lower is better: bits per byte.
",
    );
    assert_has(&text, "- Mean with its 95 % t interval over 2 seeds.\n- 1 seed, no interval.\n");
    assert_has(&text, "- Learning rates: as this grid gives them; it names no grid that chose them.\n");
    assert_has(
        &text,
        "Intervals here are 95 % bootstrap intervals over the 60 articles of the evaluation, not over seeds",
    );
    assert_has(&text, "Intervals here are 95 % bootstrap intervals over the 5,000 recordings of the evaluation");
    assert_has(&text, "| lstm | -0.060 [-0.060, -0.060] | &lt; 0.001 | 2 |\n");
    assert_has(&text, "| rnn | 123,456 | 100,000 | 12.6 s | 7,921 | not measured | 64.0 KiB |\n");
    assert_has(&text, "| prevalence | 0.400 | 0.250 |\n");
    assert_has(&text, "Trains on its folds 1, 2, 3 and evaluates on its fold 10.");
    assert_has(&text, "](report/quickstart-language-mini-learning-curve.svg)");
    assert_has(&text, "diverged | 400 | loss is not finite at update 37 \\| &lt;nan&gt; | rnn-2-byte-200000 |\n");
}

#[test]
fn terminal_of_a_sweep_is_aligned_ascii() {
    let text = terminal(&report(&fixture::sweep())).unwrap();
    assert!(text.is_ascii());
    assert_has(
        &text,
        "\
Trains on WikiText-103's valid split and evaluates on its test split. Published results train on the
train split. Scale sample.
",
    );
    assert_has(
        &text,
        "\
bim: bits per byte by lambda and target
Rows: lambda. Columns: target. Values as in the table of results. !=: differs from lambda 1.0,
target 0.5 at 5 % (paired t tests by seed, adjusted over 5 by Holm).

lambda                 target 0.5               target 0.9
------  -------------------------  -----------------------
   0.0  2.020 [1.995, 2.045] != *  2.070 [2.045, 2.095] !=
   0.5    2.120 [2.095, 2.145] !=  2.170 [2.145, 2.195] !=
   1.0       2.220 [2.195, 2.245]  2.270 [2.245, 2.295] !=
* cannot be told from the best at 5 % (paired t tests over seeds, Holm over all pairs)
",
    );
    assert_has(
        &text,
        "\nlstm   does not apply  does not apply    2.200 [2.200, 2.200]  280.0 [280.0, 280.0] *      3\n",
    );
    assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()));
}

#[test]
fn latex_is_escaped_and_bold() {
    let text = render(&report(&fixture::quickstart()), Format::Latex).unwrap();
    assert_has(&text, "    lstm & 2.28 [2.15, 2.41] & 0.38 & 2 & completed");
    let swept = render(&report(&fixture::sweep()), Format::Latex).unwrap();
    assert_has(&swept, "\\textbf{2.020 [1.995, 2.045]}");
    assert_has(&text, "with its 95 \\% t interval over 2 seeds");
    assert_has(&text, "37 \\textbar{} \\textless{}nan\\textgreater{} &");
    for pair in [("\\begin{table}", "\\end{table}"), ("\\begin{tabular}", "\\end{tabular}"), ("{", "}")] {
        assert_eq!(text.matches(pair.0).count(), text.matches(pair.1).count(), "{pair:?}");
    }
}

#[test]
fn html_is_escaped_and_loads_nothing() {
    let text = render(&report(&fixture::quickstart()), Format::Html).unwrap();
    assert_has(&text, "loss is not finite at update 37 | &lt;nan&gt;");
    let swept = render(&report(&fixture::sweep()), Format::Html).unwrap();
    assert_has(&swept, "<td class=\"n b\" data-v=\"2.0");
    assert_has(&swept, "\">2.020 [1.995,\u{a0}2.045]</td>");
    assert_has(&swept, "<td class=\"n b h0\" data-v=\"2.0");
    assert_has(&swept, "\">2.020 [1.995,\u{a0}2.045] ≠</td>");
    assert_eq!(text.matches("<svg").count(), 4, "a curve of each task, for wide and for narrow windows");
    // the one link is an empty icon: without it a browser asks for one
    for foreign in ["src=", "<script ", "@import", "url(", "http:", "https:", "fetch(", "XMLHttp"] {
        assert!(!text.contains(foreign), "{foreign}");
    }
    assert_eq!((text.matches("<link").count(), text.matches("href=\"data:,\"").count()), (1, 1));
    let mut ids: Vec<&str> = text.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "an identifier stands for one element");
    for target in text.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(ids.contains(&target), "a link to #{target}, which is not there");
    }
}

/// What the first screen must say, in the order in which it is read.
#[test]
fn the_page_begins_with_question_verdicts_and_how_to_run_it_again() {
    let mut loaded = fixture::quickstart();
    loaded.questions.insert("quickstart".into(), "Does <it> work?".into());
    let text = render(&report(&loaded), Format::Html).unwrap();
    let places: Vec<usize> = [
        "Does &lt;it&gt; work?",
        "8 cells were planned",
        "<span class=\"verdict not_comparable\">not comparable: generated data</span>: BIM reaches",
        "not measured here</span>: Learning online",
        "What was run",
        "run experiments/quickstart.yaml --scale mini",
        "<main",
        "Of 3 configurations lstm",
        "Learning curves",
        "<details",
    ]
    .iter()
    .map(|part| text.find(part).unwrap_or_else(|| panic!("{part} in\n{text}")))
    .collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn a_template_of_ones_own_gets_the_model_that_is_described() {
    let report = report(&fixture::quickstart());
    let text = "{{ title }}: {% for s in sections %}{{ s.short }} {{ s.tables[0].rows[0][1].text }}; {% endfor %}";
    assert_eq!(
        render_own(&report, "own.txt", text).unwrap(),
        "quickstart: language 2.34 [2.21, 2.47]; cardio 0.810 (1 seed); "
    );
    let drawing = render_own(
        &report,
        "own.html",
        "<style>{{ style | safe }}</style>{{ drawings[sections[0].plots[0].id] | safe }}",
    )
    .unwrap();
    assert!(drawing.contains("<svg") && drawing.contains(".plot .line"), "{drawing}");
    let error = render_own(&report, "own.txt", "{{ titel }}").unwrap_err().to_string();
    assert!(error.contains("own.txt") && error.contains("titel") && error.contains("README.md"), "{error}");
    // every name of the model is in its description
    let described = include_str!("../../../../reports/templates/README.md");
    let json: serde_json::Value = serde_json::from_str(&render(&report, Format::Json).unwrap()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    collect(&json, &mut names);
    for name in names {
        assert!(
            described.contains(&format!("`{name}`"))
                || described.contains(&format!("{name},"))
                || described.contains(&format!("{name}}}")),
            "{name}"
        );
    }
}

fn collect(value: &serde_json::Value, names: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            names.insert(name.clone());
            collect(value, names);
        }),
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, names)),
        _ => {}
    }
}

#[test]
fn csv_holds_unrounded_numbers() {
    let text = render(&report(&fixture::sweep()), Format::Csv).unwrap();
    assert_has(&text, "experiment,scale,task,model,kind,settings,split,metric,mean,low,high,seeds\n");
    assert_has(&text, ",bim,bim,model.lambda=0.5;model.sparsity.target=0.9,test,bits_per_byte,2.17,");
}

#[test]
fn what_never_ran_is_said_and_nothing_else() {
    let text = render(&report(&fixture::all_failed()), Format::Markdown).unwrap();
    assert_has(&text, "2 cells were planned, 0 completed.");
    assert_has(&text, "| bim | 0 | out of memory |");
    assert_has(&text, "| bim | 1 | out of memory | 0 | no reason recorded | bim-1 |");
    assert!(!text.contains("### Costs") && !text.contains("### Learning") && !text.contains("Bold"), "{text}");
}

#[test]
fn links_in_foreign_text_are_text() {
    for (text, expected) in [
        ("[here](javascript:x)", "[here]\\(javascript:x)"),
        ("see HTTPS://h/x or www.h.x", "see HTTPS\\://h/x or www\\.h.x"),
        ("[a]: //h", "[a]\\: //h"),
        ("[a][b]", "[a]\\[b]"),
        ("2.01 [1.98, 2.04] (3 seeds)", "2.01 [1.98, 2.04] (3 seeds)"),
    ] {
        assert_eq!(markdown(text), expected);
    }
}
