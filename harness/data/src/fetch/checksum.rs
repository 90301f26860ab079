//! SHA-256 and MD5, taken together while bytes stream by.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{FetchError, FetchResult, Mismatch};

/// Bytes read or written at a time: large enough that system calls cost nothing beside hashing.
pub const CHUNK_BYTES: usize = 128 << 10;

/// A digest of `N` bytes, written in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex<const N: usize>([u8; N]);

/// A SHA-256 digest.
pub type Sha256Sum = Hex<32>;
/// An MD5 digest. It guards against accidents, not against forgery.
pub type Md5Sum = Hex<16>;

impl<const N: usize> Hex<N> {
    /// Reads `2 N` hexadecimal digits.
    ///
    /// # Errors
    /// If there are more, fewer, or other characters.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?}; expected {} hexadecimal digits", 2 * N);
        if text.len() != 2 * N || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0; N];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| bad())?;
            // `from_str_radix` alone would take a sign
            if !pair.iter().all(u8::is_ascii_hexdigit) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(hex: Hex<N>) -> Self {
        hex.to_string()
    }
}

impl<const N: usize> std::fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&crate::files::hex(&self.0))
    }
}

impl<const N: usize> std::fmt::Debug for Hex<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What a file measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Length.
    pub bytes: u64,
    /// SHA-256 of all bytes.
    pub sha256: Sha256Sum,
    /// MD5 of all bytes.
    pub md5: Md5Sum,
}

/// Where an expected checksum comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The lock file, or a list that the lock file vouches for.
    Published,
    /// It was recorded when the file first came: it tells changes, not forgeries.
    Recorded,
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::Recorded => "recorded when it first came",
        })
    }
}

/// What a file should measure, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Length.
    pub bytes: Option<u64>,
    /// SHA-256.
    pub sha256: Option<Sha256Sum>,
    /// MD5.
    pub md5: Option<Md5Sum>,
    /// Where the checksums come from.
    pub basis: Basis,
}

impl Expected {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { bytes: None, sha256: None, md5: None, basis: Basis::Published };

    /// Whether the content can be checked.
    #[must_use]
    pub fn has_checksum(&self) -> bool {
        self.sha256.is_some() || self.md5.is_some()
    }

    /// What to record as the basis of a file that was held against this: without a checksum, the record is the first.
    #[must_use]
    pub fn record_basis(&self) -> Basis {
        if self.has_checksum() { self.basis } else { Basis::Recorded }
    }

    /// Compares; `name` and `next` are for the message.
    ///
    /// # Errors
    /// [`FetchError::Checksum`] with the first difference.
    pub fn check(&self, got: &Measured, name: &str, next: &str) -> FetchResult<()> {
        let wrong = |kind, expected: String, got: String| {
            let (path, next) = (name.to_owned(), next.to_owned());
            let basis = self.basis.to_string();
            Err(FetchError::Checksum(Box::new(Mismatch { path, kind, expected, basis, got, next })))
        };
        match (self.bytes, self.sha256, self.md5) {
            (Some(bytes), ..) if bytes != got.bytes => wrong("size", bytes.to_string(), got.bytes.to_string()),
            (_, Some(sum), _) if sum != got.sha256 => wrong("sha256", sum.to_string(), got.sha256.to_string()),
            (.., Some(sum)) if sum != got.md5 => wrong("md5", sum.to_string(), got.md5.to_string()),
            _ => Ok(()),
        }
    }
}

/// Both digests of the bytes seen so far.
#[derive(Clone, Default)]
pub struct Hasher {
    sha256: Sha256,
    md5: Md5,
    bytes: u64,
}

impl Hasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.md5.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Bytes seen so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digests of what was seen so far.
    #[must_use]
    pub fn measured(&self) -> Measured {
        let (sha256, md5) = (self.sha256.clone().finalize(), self.md5.clone().finalize());
        Measured { bytes: self.bytes, sha256: Hex(sha256.into()), md5: Hex(md5.into()) }
    }
}

/// Reads a whole file through a [`Hasher`].
///
/// # Errors
/// If the system refuses, or the user interrupts.
pub fn measure(path: &Path, interrupt: &AtomicBool) -> FetchResult<Measured> {
    let mut file = File::open(path).map_err(FetchError::io(path))?;
    let mut hasher = Hasher::default();
    feed(&mut file, &mut hasher, path, interrupt)?;
    Ok(hasher.measured())
}

/// Feeds the rest of `file` to `hasher`.
///
/// # Errors
/// If the system refuses, or the user interrupts.
pub fn feed(file: &mut File, hasher: &mut Hasher, path: &Path, interrupt: &AtomicBool) -> FetchResult<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if interrupt.load(Ordering::Relaxed) {
            return Err(FetchError::Interrupted);
        }
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => hasher.update(chunk.get(..n).unwrap_or_default()),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(FetchError::io(path)(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2 and RFC 1321 give the digests of "abc".
    #[test]
    fn digests_of_abc_in_two_parts() {
        let mut hasher = Hasher::default();
        hasher.update(b"a");
        hasher.update(b"bc");
        let m = hasher.measured();
        assert_eq!(m.sha256.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(m.md5.to_string(), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(m.bytes, 3);
        let upper = "900150983CD24FB0D6963F7D28E17F72";
        assert_eq!(Md5Sum::parse(upper), Ok(m.md5));
        for bad in
            ["", "90", "+00150983cd24fb0d6963f7d28e17f72", "g00150983cd24fb0d6963f7d28e17f72", "é".repeat(16).as_str()]
        {
            assert!(Md5Sum::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_first_difference_is_told() {
        let got = Hasher::default().measured();
        let check = |e: Expected| e.check(&got, "x", "y").map_err(|e| e.to_string());
        assert_eq!(check(Expected::UNKNOWN), Ok(()));
        assert!(check(Expected { bytes: Some(3), ..Expected::UNKNOWN }).unwrap_err().contains("wrong size"));
        let other = Some(Hex([7; 32]));
        assert!(check(Expected { sha256: other, ..Expected::UNKNOWN }).unwrap_err().contains("wrong sha256"));
        let other = Some(Hex([7; 16]));
        assert!(check(Expected { md5: other, ..Expected::UNKNOWN }).unwrap_err().contains("wrong md5"));
    }
}
