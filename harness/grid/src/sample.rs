//! `sample:` of a sweep → points drawn from ranges, at random or as a Latin hypercube.
//!
//! A draw is a hash of the seed, the path and the point's number. So equal grids draw equal values on every machine, a path
//! that is added leaves the values of the others alone, and with `method: random` a larger `points` keeps the points before.

use super::error::{ConfigResult, Origin, Sources};
use super::node::{Key, Kind, Node};
use super::read::{check_keys, read_as};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Keys beside the paths.
pub const WORDS: [&str; 3] = ["points", "seed", "method"];

/// How many points, and how they are drawn.
#[derive(Debug)]
pub struct Draws {
    points: usize,
    seed: u64,
    method: Method,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Method {
    /// Every value by itself.
    Random,
    /// Each range is cut into as many equal parts as there are points, and each part holds one value.
    #[default]
    LatinHypercube,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Spacing {
    #[default]
    Linear,
    Log,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Range {
    low: f64,
    high: f64,
    #[serde(default)]
    scale: Spacing,
    multiple_of: Option<u64>,
}

impl Draws {
    /// Reads what stands beside the paths.
    ///
    /// # Errors
    /// No `points`, none at all, more than a million, or a method that does not exist.
    pub fn parse(node: &Node, sources: &Sources) -> ConfigResult<Self> {
        let number = |key: &str, least: u64, most: u64| {
            let Some(value) = node.get(key) else { return Ok(None) };
            let number = value.to_yaml().as_u64().filter(|n| (least..=most).contains(n));
            number.map(Some).ok_or_else(|| {
                let message = format!("`{key}`: expected a whole number, got {}", value.describe());
                sources.error(value.origin, message).note(format!("from {least} to {most}"))
            })
        };
        let Some(points) = number("points", 1, 1_000_000)? else {
            let error = sources.error(node.origin, "`sample` does not say how many `points` it draws");
            return Err(error.help("write it as `sample: {points: 20, bim.lambda: {low: 0, high: 1}}`"));
        };
        let method = match node.get("method") {
            Some(method) => read_as(method, "`method`", sources)?,
            None => Method::default(),
        };
        Ok(Self { points: points as usize, seed: number("seed", 0, u64::MAX)?.unwrap_or(1), method })
    }

    /// The values of one path, one for each point.
    ///
    /// # Errors
    /// What is neither a list nor a range, and ranges that hold no value.
    pub fn column(&self, key: &Key, values: &Node, sources: &Sources) -> ConfigResult<Vec<Node>> {
        let shares = self.shares(&key.text);
        match &values.kind {
            Kind::Seq(items) if !items.is_empty() => Ok(shares
                .iter()
                .filter_map(|share| items.get(((share * items.len() as f64) as usize).min(items.len() - 1)).cloned())
                .collect()),
            Kind::Map(_) => {
                let range = Range::parse(values, &key.text, sources)?;
                Ok(shares.iter().map(|share| number(values.origin, range, range.at(*share))).collect())
            }
            Kind::Seq(_) | Kind::Scalar { .. } => {
                let error = sources.error(values.origin, format!("`{}` in `sample` is no range", key.text));
                Err(error
                    .help("write `{low: 0, high: 1}`, `{low: 1e-4, high: 1e-2, scale: log}`, or a list to draw from"))
            }
        }
    }

    /// Where in its range each point lies, 0 up to but not 1.
    fn shares(&self, path: &str) -> Vec<f64> {
        let draw = |use_: &str, point: usize| hash(&format!("{}\n{use_}\n{path}\n{point}", self.seed));
        let inside = |point| (draw("inside", point) >> 11) as f64 / (1_u64 << 53) as f64;
        match self.method {
            Method::Random => (0..self.points).map(inside).collect(),
            Method::LatinHypercube => {
                let mut parts: Vec<usize> = (0..self.points).collect();
                parts.sort_by_key(|part| draw("order", *part));
                let share = |(point, part): (usize, &usize)| (*part as f64 + inside(point)) / self.points as f64;
                parts.iter().enumerate().map(share).collect()
            }
        }
    }
}

impl Range {
    fn parse(node: &Node, path: &str, sources: &Sources) -> ConfigResult<Self> {
        check_keys(node, &["low", "high", "scale", "multiple_of"], &format!("the range of `{path}`"), sources)?;
        let range: Self = read_as(node, &format!("the range of `{path}`"), sources)?;
        let refuse = |message: String| Err(sources.error(node.origin, message));
        if !(range.low.is_finite() && range.high.is_finite() && range.low < range.high) {
            return refuse(format!("`{path}`: expected `low` below `high`, got {} and {}", range.low, range.high));
        }
        if range.scale == Spacing::Log && range.low <= 0.0 {
            return refuse(format!("`{path}`: `scale: log` needs a `low` above 0, got {}", range.low));
        }
        let (first, last) = range.multiples();
        if range.multiple_of == Some(0) || first > last {
            return refuse(format!("`{path}`: no multiple of {} lies in the range", range.multiple_of.unwrap_or(0)));
        }
        Ok(range)
    }

    /// The first and the last multiple in the range, as counts.
    fn multiples(&self) -> (f64, f64) {
        let unit = self.multiple_of.unwrap_or(1) as f64;
        match self.multiple_of {
            Some(_) => ((self.low / unit).ceil(), (self.high / unit).floor()),
            None => (0.0, 0.0),
        }
    }

    fn at(&self, share: f64) -> f64 {
        let value = |low: f64, high: f64| match self.scale {
            Spacing::Linear => low + (high - low) * share,
            Spacing::Log => low * (high / low).powf(share),
        };
        let Some(unit) = self.multiple_of.map(|unit| unit as f64) else { return value(self.low, self.high) };
        let (first, last) = self.multiples();
        match self.scale {
            // every multiple gets an equal share of the range
            Spacing::Linear => (first + (share * (last - first + 1.0)).floor()).min(last) * unit,
            Spacing::Log => (value(self.low, self.high) / unit).round().clamp(first, last) * unit,
        }
    }
}

/// A number as a grid would write it: whole, or with four digits, which is what tables show.
fn number(origin: Origin, range: Range, value: f64) -> Node {
    let rounded = format!("{value:.3e}").parse().ok().filter(|rounded| (range.low..=range.high).contains(rounded));
    let rounded: f64 = rounded.unwrap_or(value); // a narrow range may hold no number of four digits
    let text = if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{rounded}") };
    Node { origin, kind: Kind::Scalar { text, quoted: false } }
}

fn hash(text: &str) -> u64 {
    let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}
