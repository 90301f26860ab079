//! The numbers behind the tables as CSV.

use super::super::model::Report;

/// One row for each metric of each configuration.
pub(super) fn csv(report: &Report) -> String {
    let mut out = String::from("experiment,scale,task,model,kind,settings,split,metric,mean,low,high,seeds\n");
    for s in &report.summaries {
        let texts = [&s.experiment, &s.scale, &s.task, &s.model, &s.kind, &s.settings, &s.split, &s.metric];
        let number = |value: Option<f64>| value.map(|v| v.to_string()).unwrap_or_default();
        let mut fields: Vec<String> = texts.into_iter().map(|text| quote(text)).collect();
        fields.extend([number(Some(s.mean)), number(s.low), number(s.high), s.seeds.to_string()]);
        out += &fields.join(",");
        out.push('\n');
    }
    out
}

/// A field of a CSV file (RFC 4180).
fn quote(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_must() {
        assert_eq!(quote("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quote("a b"), "a b");
    }
}
