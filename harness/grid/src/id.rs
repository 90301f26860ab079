//! One spelling for equal JSON, and short names for long texts: what cell ids are made of.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// JSON without spaces, keys sorted by their bytes: equal values have equal texts.
pub fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            let entry =
                |(key, value): (&String, &Value)| format!("{}:{}", Value::from(key.as_str()), canonical_json(value));
            format!("{{{}}}", entries.into_iter().map(entry).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical_json).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}

/// The first 16 hexadecimal digits of the SHA-256 of a text.
pub fn short_id(canonical: &str) -> String {
    let head =
        Sha256::digest(canonical.as_bytes()).iter().take(8).fold(0_u64, |head, byte| head << 8 | u64::from(*byte));
    format!("{head:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let a: Value = serde_json::from_str(r#"{"b": [1, {"z": null, "a": "q\"é"}], "a": 0.5}"#).unwrap();
        let b: Value = serde_json::from_str(r#"{"a": 0.5, "b": [1, {"a": "q\"é", "z": null}]}"#).unwrap();
        assert_eq!(canonical_json(&a), r#"{"a":0.5,"b":[1,{"a":"q\"é","z":null}]}"#);
        assert_eq!(canonical_json(&a), canonical_json(&b));
        assert_ne!(canonical_json(&json!([1, 2])), canonical_json(&json!([2, 1])));
    }

    #[test]
    fn the_id_is_the_head_of_sha256() {
        // FIPS 180-2, appendix B.1: SHA-256 of "abc".
        assert_eq!(short_id("abc"), "ba7816bf8f01cfea");
    }
}
