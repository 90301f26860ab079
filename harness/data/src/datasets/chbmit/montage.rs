//! The channels all cases share, found by name: 18 of the bipolar double banana.

use crate::formats::edf::Header;

/// Bipolar channels of the longitudinal montage, in the order of the recordings of chb01.
pub const CHANNELS: [&str; 18] = [
    "FP1-F7", "F7-T7", "T7-P7", "P7-O1", "FP1-F3", "F3-C3", "C3-P3", "P3-O1", "FP2-F4", "F4-C4", "C4-P4", "P4-O2",
    "FP2-F8", "F8-T8", "T8-P8", "P8-O2", "FZ-CZ", "CZ-PZ",
];

/// How a channel comes from the signals of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Derivation {
    /// As recorded.
    Direct(usize),
    /// Recorded the other way round.
    Inverted(usize),
    /// Difference of two electrodes recorded against the same reference: the first minus the second.
    Difference(usize, usize),
}

/// How each of [`CHANNELS`] comes from a file's signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Montage {
    /// In the order of [`CHANNELS`].
    pub derivations: [Derivation; CHANNELS.len()],
    /// Whether some were found by other names of their electrodes only, such as `EEG FP1-REF` or `P3-01`.
    pub by_other_names: bool,
}

/// How each of [`CHANNELS`] comes from a file's signals.
///
/// Of several signals of one name the first is used (the publisher's files hold T8-P8 twice, with the same samples);
/// dummy signals named `-` match nothing. Where a case was recorded against a common reference (`F7-CS2`, or `F7` alone),
/// channels are the differences. Labels count as they stand first, then by [`usual`] names.
///
/// # Errors
/// With the channels that the file has no signals for.
pub fn derive(header: &Header) -> Result<Montage, Vec<&'static str>> {
    let labels: Vec<String> = header.signals.iter().map(|signal| signal.label.to_ascii_uppercase()).collect();
    let usual: Vec<String> = labels.iter().map(|label| usual(label)).collect();
    let mut found = Montage { derivations: [Derivation::Direct(0); CHANNELS.len()], by_other_names: false };
    let mut absent = Vec::new();
    for (to, name) in found.derivations.iter_mut().zip(CHANNELS) {
        let other = || derivation(&usual, name).inspect(|_| found.by_other_names = true);
        match derivation(&labels, name).or_else(other) {
            Some(derivation) => *to = derivation,
            None => absent.push(name),
        }
    }
    if absent.is_empty() { Ok(found) } else { Err(absent) }
}

fn derivation(labels: &[String], name: &str) -> Option<Derivation> {
    let place = |name: &str| labels.iter().position(|label| label == name);
    let (plus, minus) = name.split_once('-')?;
    if let Some(direct) = place(name) {
        return Some(Derivation::Direct(direct));
    }
    if let Some(inverted) = place(&format!("{minus}-{plus}")) {
        return Some(Derivation::Inverted(inverted));
    }
    labels.iter().enumerate().find_map(|(i, label)| {
        let (electrode, other) = match label.split_once('-') {
            Some((electrode, reference)) => (electrode, format!("{minus}-{reference}")),
            None => (label.as_str(), minus.to_owned()), // all electrodes without a reference have one in common
        };
        Some(Derivation::Difference(i, place(&other).filter(|_| electrode == plus)?))
    })
}

/// A label in capitals by the names that [`CHANNELS`] use: without blanks, the `EEG` (or `POL`) in front, dots behind and
/// the digit that programs add to labels that occur twice (`T8-P8-0`); with a hyphen between the electrodes; the letter O where a digit stands for it (`01`, `0Z`); T7, T8, P7 and P8 for what the ten-twenty system first called T3,
/// T4, T5 and T6.
fn usual(label: &str) -> String {
    let bare: String = label.chars().filter(|c| !c.is_whitespace()).map(|c| if c == '–' { '-' } else { c }).collect();
    let bare = ["EEG", "POL"].iter().find_map(|kind| bare.strip_prefix(kind)).unwrap_or(&bare);
    let bare = bare.trim_start_matches([':', '_']).trim_end_matches('.');
    let bare = bare.replace('_', "-");
    let once = match *bare.split('-').collect::<Vec<_>>() {
        [plus, minus, number] if matches!(number.as_bytes(), [b'0'..=b'9']) => format!("{plus}-{minus}"),
        _ => bare,
    };
    let parts = once.split('-').map(|electrode| match electrode {
        "01" => "O1",
        "02" => "O2",
        "0Z" => "OZ",
        "T3" => "T7",
        "T4" => "T8",
        "T5" => "P7",
        "T6" => "P8",
        same => same,
    });
    parts.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn channels_are_found_by_name_whatever_their_place() {
        let found = |names: &[&str], name| derivation(&labels(names), name);
        assert_eq!(found(&["-", "T8-P8", "F7-T7", "T8-P8"], "T8-P8"), Some(Derivation::Direct(1)));
        assert_eq!(found(&["P7-T7", "-"], "T7-P7"), Some(Derivation::Inverted(0)));
        assert_eq!(found(&["-", "F7-CS2", "T7-A1", "T7-CS2"], "F7-T7"), Some(Derivation::Difference(1, 3)));
        assert_eq!(found(&["F7-CS2", "T7-A1"], "F7-T7"), None, "other references do not compare");
        assert_eq!(found(&["-", "--1", ""], "F7-T7"), None);
        assert_eq!(found(&["FP1", "T7", "F7"], "F7-T7"), Some(Derivation::Difference(2, 1)));
        assert_eq!(found(&["F7", "T7-A1"], "F7-T7"), None, "one has a reference, one has another or none");
    }

    #[test]
    fn electrodes_have_several_names() {
        for (label, name) in [
            ("FP1", "FP1"),
            ("FP1-REF", "FP1-REF"),
            ("EEG FP1-REF", "FP1-REF"),
            ("EEG  FZ - CZ", "FZ-CZ"),
            ("P3-01", "P3-O1"),
            ("02-P8", "O2-P8"),
            ("POL T5", "P7"),
            ("T3-T5", "T7-P7"),
            ("FC5.", "FC5"),
            ("T8-P8-1", "T8-P8"),
            ("EEG_FP1_REF", "FP1-REF"),
            ("FP1-0", "FP1-0"),
            ("EEG", ""),
            ("-", "-"),
            ("EKG1-CHIN", "EKG1-CHIN"),
            ("C01-C02", "C01-C02"),
        ] {
            assert_eq!(usual(label), name, "{label}");
        }
    }
}
