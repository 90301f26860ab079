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

8 cells were planned, 7 completed.

## Language modelling (WikiText-103)

### Results

Generated data in the file format of WikiText-103, not WikiText-103: no number here compares with a published one. \
Trains on its train split and evaluates on its test split. Scale mini. \
The text's source has an entropy of 1.900 bits per byte: no model can go below it.

| model | bits per byte | above the floor | seeds | outcome | published (paper) | verdict |
|:---|---:|---:|---:|:---|:---|:---|
| bim | 2.340 [2.213, 2.467] | 0.440 | 2 | completed | perplexity 20.1, bits per char 1.23 | \
not comparable at this scale |
| lstm | 2.280 [2.153, 2.407] | 0.380 | 2 | completed | perplexity 24.0, bits per char 1.42 | \
not comparable at this scale |
| rnn | 2.820 (1 seed) | 0.920 | 1 | 1 completed, 1 diverged | no published value | no published value |

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
Rows: lambda. Columns: target. Values as in the table of results.

lambda              target 0.5            target 0.9
------  ----------------------  --------------------
   0.0  2.020 [1.995, 2.045] *  2.070 [2.045, 2.095]
   0.5    2.120 [2.095, 2.145]  2.170 [2.145, 2.195]
   1.0    2.220 [2.195, 2.245]  2.270 [2.245, 2.295]
* cannot be told from the best at 5 % (paired t tests over seeds, Holm over all pairs)
",
    );
    assert_has(&text, "lstm   does not apply  does not apply    2.200 [2.200, 2.200]  280.0 [280.0, 280.0] *      3  ");
    assert!(text.lines().all(|line| line == line.trim_end()));
}

#[test]
fn latex_is_escaped_and_bold() {
    let text = render(&report(&fixture::quickstart()), Format::Latex).unwrap();
    assert_has(&text, "    lstm & 2.280 [2.153, 2.407] & 0.380 & 2 & completed &");
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
    assert_has(&swept, "<strong>2.020 [1.995, 2.045]</strong>");
    assert_eq!(text.matches("<svg").count(), 2);
    for foreign in ["src=", "<link", "<script", "@import", "url("] {
        assert!(!text.contains(foreign), "{foreign}");
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
