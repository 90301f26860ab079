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
///
/// Of several signals of one name the first is used (the publisher's files hold T8-P8 twice, with the same samples);
/// dummy signals named `-` match nothing. Where a case was recorded against a common reference (`F7-CS2`), channels are
/// the differences.
///
/// # Errors
/// With the channels that the file has no signals for.
pub fn derive(header: &Header) -> Result<[Derivation; CHANNELS.len()], Vec<&'static str>> {
    let labels: Vec<String> = header.signals.iter().map(|signal| signal.label.to_ascii_uppercase()).collect();
    let mut found = [Derivation::Direct(0); CHANNELS.len()];
    let mut absent = Vec::new();
    for (to, name) in found.iter_mut().zip(CHANNELS) {
        match derivation(&labels, name) {
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
        let (electrode, reference) = label.split_once('-')?;
        let other = place(&format!("{minus}-{reference}")).filter(|_| electrode == plus)?;
        Some(Derivation::Difference(i, other))
    })
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
    }
}
