//! Checksum lists as `sha256sum` and `PhysioNet` write them: a digest, blanks, a path.

use std::path::Path;

use super::checksum::Sha256Sum;
use super::error::{FetchError, FetchResult};
use super::paths::SafePath;

/// Largest list accepted: that of PTB-XL, the longest of the datasets' lists, has 8 MB.
pub const LIST_BYTES_MAX: u64 = 64 << 20;

/// Reads a list. Paths keep their order.
///
/// # Errors
/// With the line that is not `DIGEST PATH`, whose path leaves its folder, or that names a path a second time.
pub fn parse(path: &Path, text: &str) -> FetchResult<Vec<(SafePath, Sha256Sum)>> {
    let mut entries = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (line, n) in text.lines().zip(1_u64..) {
        if line.trim().is_empty() {
            continue;
        }
        let bad = |got: String| FetchError::Format {
            path: path.to_owned(),
            line: n,
            expected: "a sha256 in hexadecimal, a blank, and a relative path".into(),
            got,
        };
        let (digest, rest) = line.split_once(' ').ok_or_else(|| bad(format!("{line:?}")))?;
        let digest = Sha256Sum::parse(digest).map_err(bad)?;
        // `sha256sum` puts a second blank, or `*` for binary mode, in front of the path
        let name = rest.strip_prefix([' ', '*']).unwrap_or(rest);
        let name = SafePath::new(name.strip_prefix("./").unwrap_or(name)).map_err(bad)?;
        if !seen.insert(name.clone()) {
            return Err(bad(format!("{name} a second time")));
        }
        entries.push((name, digest));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    #[test]
    fn all_three_styles() {
        let text = format!("{ZEROS} RECORDS\n{ZEROS}  a/b+.edf\r\n\n{ZEROS} *./c d\n");
        let entries = parse(Path::new("S"), &text).unwrap();
        let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["RECORDS", "a/b+.edf", "c d"]);
    }

    #[test]
    fn wrong_lines_are_named() {
        for bad in ["x", "00 RECORDS", &format!("{ZEROS} ../x"), &format!("{ZEROS} /x"), &format!("{ZEROS} A")] {
            let error = parse(Path::new("S"), &format!("{ZEROS} A\n{bad}\n")).unwrap_err().to_string();
            assert!(error.starts_with("S:2: "), "{error}");
        }
    }
}
