//! What was run, by which program on which machine, on which data, and how to run it again.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::short;
use super::group::{Part, Run};
use super::model::{Fact, Loaded};
use super::{catalogue, provenance};

/// Characters of a digest that are shown.
const DIGEST: usize = 12;
/// Commands that are shown.
const MOST_COMMANDS: usize = 8;

/// What the experiments ask.
pub(super) fn questions(parts: &[Part], loaded: &Loaded) -> Vec<Fact> {
    let mut all: Vec<Fact> = Vec::new();
    for part in parts {
        let text = loaded.questions.get(part.experiment);
        let new = text.filter(|_| all.iter().all(|question| question.name != part.experiment));
        all.extend(new.map(|text| Fact { name: part.experiment.into(), value: text.clone() }));
    }
    all
}

/// What was run; facts that nothing recorded are left out.
pub(super) fn facts(parts: &[Part]) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            facts.push(Fact { name: name.into(), value });
        }
    };
    let of = |value: &dyn Fn(&Run) -> Option<String>| distinct(parts.iter().flat_map(Part::runs).filter_map(value));
    let seeds: BTreeSet<u64> = parts.iter().flat_map(Part::runs).map(|run| run.head.seed).collect();
    add("scale", distinct(parts.iter().map(|part| part.scale.to_owned())));
    add("seeds", seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "));
    for part in parts {
        add(&data_name(part, parts), format!("{}{}", provenance::data_in_short(part), digest(part)));
    }
    let programs: Vec<String> = parts.iter().map(provenance::programs).collect();
    if programs.windows(2).all(|pair| pair[0] == pair[1]) {
        add("program", programs.first().cloned().unwrap_or_default());
    } else {
        // which experiment a commit ran must be told
        for (part, text) in parts.iter().zip(programs) {
            add(&format!("program, {}", short(part, parts)), text);
        }
    }
    let machine = |part: &Part| Some(provenance::machine(part)).filter(|_| part.runs().any(Run::completed));
    add("machine", distinct(parts.iter().filter_map(machine)));
    add("processor", of(&|run| run.head.processor.clone()));
    add("training time", training_time(parts));
    add("prices", of(&|run| run.head.cost_model.clone()));
    facts
}

/// How long the completed cells trained.
fn training_time(parts: &[Part]) -> String {
    // two experiments may have a cell in common
    let completed = parts.iter().flat_map(Part::runs).filter(|run| run.completed());
    let by_cell: BTreeMap<&str, f64> = completed.map(|run| (run.head.cell.as_str(), run.head.train_s)).collect();
    let all: Vec<f64> = by_cell.into_values().collect();
    let longest = all.iter().copied().fold(0.0, f64::max);
    match all.len() {
        0 => String::new(),
        1 => catalogue::duration(longest),
        n => {
            let sum = catalogue::duration(all.iter().sum());
            format!("{sum} over {n} cells, the longest {}; scoring comes on top", catalogue::duration(longest))
        }
    }
}

fn data_name(part: &Part, parts: &[Part]) -> String {
    if parts.len() == 1 { "data".into() } else { format!("data, {}", short(part, parts)) }
}

/// The digest of the data, or how many there are.
fn digest(part: &Part) -> String {
    let all: BTreeSet<&str> = part.runs().filter_map(|run| run.head.data.as_deref()).collect();
    let short = |text: &str| text.get(..DIGEST).unwrap_or(text).to_owned();
    match all.iter().collect::<Vec<_>>()[..] {
        [] => String::new(),
        [only] => format!("; digest {}…", short(only)),
        [first, ..] => format!("; {} digests, the first {}…", all.len(), short(first)),
    }
}

/// Distinct values, sorted and joined.
fn distinct(values: impl Iterator<Item = String>) -> String {
    values.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("; ")
}

/// Whether a name can stand in a command: results may come from anybody, and this is pasted into a shell.
fn is_plain(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) && !name.starts_with('-')
}

/// Whether a shell takes a text as words and nothing else: what is quoted it takes as it is.
fn is_words(text: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || " ._-/=:,+@%".contains(c);
    let mut pieces = text.split('\'').enumerate();
    let printed =
        pieces.clone().all(|(i, piece)| piece.chars().all(|c| if i % 2 == 0 { is_word(c) } else { !c.is_control() }));
    printed && pieces.by_ref().count() % 2 == 1
}

/// What was typed to get a cell, for a checkout; `None` if it was not recorded or would do more than run it.
fn typed(run: &Run) -> Option<String> {
    let words = run.head.command.as_deref()?.strip_prefix("harness ")?;
    (is_words(words) && is_run(words)).then(|| format!("cargo run --release -- {words}"))
}

/// Whether the first of these words that is no option of every command is `run`.
fn is_run(words: &str) -> bool {
    let mut quoted = false;
    let mut words = words.split(|c| {
        quoted ^= c == '\'';
        c == ' ' && !quoted
    });
    while let Some(word) = words.next() {
        match word {
            "--quiet" | "-q" => {}
            "--log-format" | "--cache" => drop(words.next()),
            _ if word.starts_with("--log-format=") || word.starts_with("--cache=") => {}
            _ => return word == "run",
        }
    }
    false
}

/// What runs an experiment whose command nobody recorded.
fn written(part: &Part) -> Option<String> {
    let data = if part.generated() { "" } else { " --data DIR" };
    let names = is_plain(part.experiment) && is_plain(part.scale);
    names.then(|| {
        format!("cargo run --release -- run experiments/{}.yaml --scale {}{data}", part.experiment, part.scale)
    })
}

/// Commands that run the experiments again, each at the commit that ran it where there is one.
pub(super) fn commands(parts: &[Part]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let commits: BTreeSet<&str> =
        parts.iter().flat_map(Part::runs).filter_map(|run| run.head.git_commit.as_deref()).collect();
    if let [commit] = commits.iter().collect::<Vec<_>>()[..]
        && is_plain(commit)
    {
        all.push(format!("git checkout {commit}"));
    }
    for command in parts.iter().flat_map(|part| part.runs().filter_map(|run| typed(run).or_else(|| written(part)))) {
        if !all.contains(&command) {
            all.push(command);
        }
    }
    let more = all.len().saturating_sub(MOST_COMMANDS);
    if more > 0 {
        all.truncate(MOST_COMMANDS);
        all.push(format!("# and {more} more: `command` in results.parquet has all"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::group::parts;
    use super::*;

    #[test]
    fn what_was_run_and_how_to_run_it_again() {
        let mut loaded = fixture::quickstart();
        for row in &mut loaded.rows {
            row.git_commit = Some("0123456789abcdef".into());
            row.version = Some("0.1.0".into());
            row.processor = Some("Some CPU".into());
            row.data = Some("feedfacecafe0123".into());
        }
        loaded.questions.insert("quickstart".into(), "Does it work?".into());
        let parts = parts(&loaded.rows);
        assert_eq!(
            commands(&parts),
            ["git checkout 0123456789abcdef", "cargo run --release -- run experiments/quickstart.yaml --scale mini"]
        );
        assert!(["a;rm -rf $HOME", "--out", "a\nb", "`x`"].iter().all(|name| !is_plain(name)));
        let facts = facts(&parts);
        let of = |name: &str| facts.iter().find(|fact| fact.name == name).map(|fact| fact.value.as_str());
        assert_eq!(of("program"), Some("0.1.0, commit 0123456789ab"));
        assert_eq!(of("processor"), Some("Some CPU"));
        let mut several = loaded.clone();
        for row in several.rows.iter_mut().filter(|row| row.task == "cardio") {
            (row.git_commit, row.version) = (None, None);
        }
        let several = super::facts(&super::super::group::parts(&several.rows));
        let programs: Vec<(&str, &str)> = several
            .iter()
            .filter(|fact| fact.name.starts_with("program"))
            .map(|fact| (fact.name.as_str(), fact.value.as_str()))
            .collect();
        let unknown = "commit not recorded by this version of the program";
        assert_eq!(programs, [("program, language", "0.1.0, commit 0123456789ab"), ("program, cardio", unknown)]);
        assert_eq!(of("seeds"), Some("1, 2"));
        assert!(of("data, cardio").is_some_and(|text| text.ends_with("; digest feedfacecafe…")), "{facts:?}");
        assert_eq!(of("prices"), None, "nothing recorded");
        let mut priced = loaded.clone();
        priced.rows.iter_mut().for_each(|row| row.cost_model = Some("list".into()));
        let priced = super::facts(&super::super::group::parts(&priced.rows));
        let of_priced = |name: &str| priced.iter().find(|fact| fact.name == name).map(|fact| fact.value.as_str());
        assert_eq!(of_priced("prices"), Some("list"));
        assert_eq!(
            of_priced("training time"),
            Some("1 min 29 s over 7 cells, the longest 12.8 s; scoring comes on top")
        );
        let questions = questions(&parts, &loaded);
        assert_eq!((questions.len(), questions[0].value.as_str()), (1, "Does it work?"));
        loaded
            .rows
            .iter_mut()
            .for_each(|row| row.command = Some("harness run a.yaml --set 'x=[1, 2]' --data d".into()));
        let again = |loaded: &Loaded| commands(&super::super::group::parts(&loaded.rows)).remove(1);
        assert_eq!(again(&loaded), "cargo run --release -- run a.yaml --set 'x=[1, 2]' --data d");
        for before in ["--quiet", "-q --log-format json", "--cache=/c --quiet", "--cache '/my c'"] {
            let command = format!("{before} run a.yaml --only model=bim --data d");
            loaded.rows.iter_mut().for_each(|row| row.command = Some(format!("harness {command}")));
            assert_eq!(again(&loaded), format!("cargo run --release -- {command}"));
        }
        for other in [
            "harness run a.yaml; rm x",
            "harness --quiet data fetch",
            "harness worker --plan run",
            "harness run 'a",
            "harness run $(x)",
            "harness run 'a\n'",
            "sbatch x",
            "rm x",
        ] {
            loaded.rows.iter_mut().for_each(|row| row.command = Some(other.into()));
            assert_eq!(
                again(&loaded),
                "cargo run --release -- run experiments/quickstart.yaml --scale mini",
                "{other}"
            );
        }
    }
}
