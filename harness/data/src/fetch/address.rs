//! Addresses on the web.

use serde::{Deserialize, Serialize};

use super::paths::SafePath;

/// An `http` or `https` address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(String);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        match rest {
            Some(rest) if !rest.is_empty() && text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Self(text)),
            _ => Err(format!("{text:?}; expected an address that begins with https:// or http://, without blanks")),
        }
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.0
    }
}

impl Address {
    /// The address as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its last component, without a query.
    #[must_use]
    pub fn file_name(&self) -> &str {
        let path = self.0.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }

    /// The address of `path` below this one.
    #[must_use]
    pub fn below(&self, path: &SafePath) -> String {
        let mut address = self.0.clone();
        for byte in path.as_str().bytes() {
            // RFC 3986: unreserved characters and the separator stand for themselves
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                address.push(char::from(byte));
            } else {
                use std::fmt::Write;
                // Writing to a String cannot fail.
                let _ = write!(address, "%{byte:02X}");
            }
        }
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_listed_files_are_escaped() {
        let base = Address::try_from("https://h/x/".to_owned()).unwrap();
        assert_eq!(base.below(&SafePath::new("chb02/chb02_16+.edf").unwrap()), "https://h/x/chb02/chb02_16%2B.edf");
        let address = Address::try_from("https://h/x/a.zip?download=1".to_owned()).unwrap();
        assert_eq!(address.file_name(), "a.zip");
    }
}
