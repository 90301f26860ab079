//! A gate's result in the forms that CI systems read.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::gate::{Check, Gate, Outcome};

/// Text of XML.
fn xml(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    escaped.chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

/// `JUnit`'s XML.
#[must_use]
pub fn junit(gate: &Gate) -> String {
    let skipped = gate.checks.iter().filter(|check| matches!(check.outcome, Outcome::NotCompared(_))).count();
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"harness gate\" tests=\"{}\" failures=\"{}\" skipped=\"{skipped}\">\n",
        gate.checks.len(),
        gate.failures().count()
    );
    for check in &gate.checks {
        let head = format!("  <testcase classname=\"{}\" name=\"{}\"", check.tier, xml(&check.name));
        let _ = match &check.outcome {
            Outcome::Passed => writeln!(out, "{head}/>"),
            Outcome::Failed(why) => writeln!(out, "{head}><failure message=\"{}\"/></testcase>", xml(why)),
            Outcome::NotCompared(why) => writeln!(out, "{head}><skipped message=\"{}\"/></testcase>", xml(why)),
        };
    }
    out + "</testsuite>\n"
}

/// Markdown for a CI job's summary.
#[must_use]
pub fn summary(gate: &Gate) -> String {
    let failed: Vec<(&Check, &str)> = gate.failures().collect();
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    for check in &gate.checks {
        if let Outcome::NotCompared(why) = &check.outcome {
            *left.entry(why).or_default() += 1;
        }
    }
    let not_compared: usize = left.values().sum();
    let mut out = format!(
        "## Gate: {}\n\n{} checks passed, {} failed, {not_compared} were not compared.\n",
        if failed.is_empty() { "passed" } else { "failed" },
        gate.checks.len() - failed.len() - not_compared,
        failed.len(),
    );
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    if !failed.is_empty() {
        out += "\n| failed | tier | why |\n|---|---|---|\n";
        for (check, why) in failed {
            let _ = writeln!(out, "| {} | {} | {} |", cell(&check.name), check.tier, cell(why));
        }
    }
    if !gate.cleared.is_empty() {
        out += "\nFailed once and passed when run again:\n\n";
        for (name, why) in &gate.cleared {
            let _ = writeln!(out, "- {}: {}", cell(name), cell(why));
        }
    }
    if !left.is_empty() {
        out += "\nNot compared:\n\n";
        for (why, n) in left {
            let _ = writeln!(out, "- {n} × {}", cell(why));
        }
    }
    out
}

/// Lines that GitHub shows beside a job.
#[must_use]
pub fn annotations(gate: &Gate) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for (check, why) in gate.failures() {
        let _ = writeln!(out, "::error title={}::{}", property(&check.name), data(why));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tier: &'static str, name: &str, outcome: Outcome) -> Check {
        Check { tier, name: name.into(), outcome }
    }

    #[test]
    fn nothing_breaks_out_of_its_place() {
        let gate = Gate {
            checks: vec![
                check("exact", "a <b> & \"c\"", Outcome::Failed("x:y, 10 %\nz".into())),
                check("noisy", "d", Outcome::NotCompared("e|f".into())),
                check("noisy", "g", Outcome::Passed),
            ],
            cleared: vec![("h|i".into(), "it was slow".into())],
        };
        let xml = junit(&gate);
        assert!(xml.contains("tests=\"3\" failures=\"1\" skipped=\"1\""), "{xml}");
        assert!(xml.contains("a &lt;b&gt; &amp; &quot;c&quot;"), "{xml}");
        assert_eq!(annotations(&gate), "::error title=a <b> & \"c\"::x:y, 10 %25%0Az\n");
        let words = summary(&gate);
        assert!(words.contains("## Gate: failed") && words.contains("1 × e\\|f"), "{words}");
        assert!(words.contains("when run again:\n\n- h\\|i: it was slow\n"), "{words}");
        assert!(words.contains("1 checks passed, 1 failed, 1 were not compared"), "{words}");
    }
}
