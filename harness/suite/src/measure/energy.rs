//! What operations would cost: prices from one source, read from a file, and their sums.
//!
//! An operation count is not an energy. A price list is a model of a machine that nobody here runs; every figure names it,
//! and prices of different lists are never added.

use std::collections::BTreeMap;
use std::path::Path;

use learner::OpCounts;
use learner::operations::{MOST_BITS, Work};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use grid::nearest;

/// Price lists that come with the program, the default first.
const KNOWN: [(&str, &str); 5] = [
    ("horowitz-2014-fp32", include_str!("../../../../reports/cost-models/horowitz-2014-fp32.yaml")),
    ("horowitz-2014-fp16", include_str!("../../../../reports/cost-models/horowitz-2014-fp16.yaml")),
    ("horowitz-2014-int8", include_str!("../../../../reports/cost-models/horowitz-2014-int8.yaml")),
    ("loihi-2018", include_str!("../../../../reports/cost-models/loihi-2018.yaml")),
    ("loihi-2-graded", include_str!("../../../../reports/cost-models/loihi-2-graded.yaml")),
];

/// Most bytes of a price list: far more than one has.
const LONGEST: u64 = 1 << 16;

/// A price in picojoules: finite and not negative.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Picojoules(f64);

impl TryFrom<f64> for Picojoules {
    type Error = String;
    fn try_from(x: f64) -> std::result::Result<Self, String> {
        if x.is_finite() && x >= 0.0 { Ok(Self(x)) } else { Err(format!("expected a price of 0 pJ or more, got {x}")) }
    }
}

impl From<Picojoules> for f64 {
    fn from(x: Picojoules) -> Self {
        x.0
    }
}

/// A price list. What it has no price for stays unpriced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostModel {
    /// Name in tables and metadata.
    pub name: String,
    /// Where the prices are published.
    pub source: String,
    /// Process and voltage they hold for.
    pub technology: String,
    /// What a reader must know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Bits of a weight or a state.
    pub word_bits: u32,
    /// Per multiply–accumulate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac_pj: Option<Picojoules>,
    /// Per accumulate: a burst of k spikes is paid k times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ac_pj: Option<Picojoules>,
    /// In place of `ac_pj`: per accumulate with a burst paid once, on a machine that sends it as one graded spike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_pj: Option<Picojoules>,
    /// On top of `ac_pj`, per accumulate of a digit of a weighted spike: the weight's shift. Absent, the accumulate's price has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shift_pj: Option<Picojoules>,
    /// Per product of a weight with an activation of so many bits, from 1 to 8. What is not listed is paid bit by bit, an
    /// accumulate for each of the `n − 1` bits of its magnitude (for one bit one), but no more than `mac_pj`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mac_by_bits: BTreeMap<u32, Picojoules>,
    /// Per element-wise operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elementwise_pj: Option<Picojoules>,
    /// Per update of a spiking neuron.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neuron_update_pj: Option<Picojoules>,
    /// Memory; without it traffic has no price of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
}

/// Prices of memory by its size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Bits that one access reads or writes.
    pub access_bits: u32,
    /// Sizes, ascending.
    pub levels: Vec<Level>,
    /// Per access of anything larger.
    pub beyond_pj: Picojoules,
}

/// A memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Largest size.
    pub up_to_bytes: u64,
    /// Per access.
    pub access_pj: Picojoules,
}

/// What some work costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Energy {
    /// Arithmetic alone.
    pub arithmetic_pj: f64,
    /// With weights and state read and written; `None` where the list does not price memory.
    pub with_traffic_pj: Option<f64>,
    /// Weight products alone.
    pub synaptic_pj: f64,
    /// Share of the operations that the list has a price for; below 1 the energies are lower bounds.
    pub coverage: f64,
}

/// Sizes that decide which memory is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Parameters.
    pub parameters: u64,
    /// Numbers of state.
    pub state: u64,
    /// Numbers of traces: memory that learning reads beside the state, and the forward pass does not.
    pub traces: u64,
}

impl Sizes {
    /// Of a learner, whose state is in 32-bit numbers.
    #[must_use]
    pub fn of(cost: &learner::Cost) -> Self {
        let traces = cost.trace_bytes / 4;
        Self { parameters: cost.parameters, state: cost.state_bytes / 4 - traces, traces }
    }
}

impl Default for CostModel {
    /// The first of the known lists. Its text is part of the program and read by a test; an empty list would price nothing.
    fn default() -> Self {
        let [(name, text), ..] = KNOWN;
        serde_yaml::from_str(text).unwrap_or_else(|_| Self {
            name: format!("{name} (unreadable)"),
            source: String::new(),
            technology: String::new(),
            notes: None,
            word_bits: 32,
            mac_pj: None,
            ac_pj: None,
            event_pj: None,
            shift_pj: None,
            mac_by_bits: BTreeMap::new(),
            elementwise_pj: None,
            neuron_update_pj: None,
            memory: None,
        })
    }
}

impl CostModel {
    /// Names of the lists that come with the program.
    #[must_use]
    pub fn names() -> [&'static str; KNOWN.len()] {
        KNOWN.map(|(name, _)| name)
    }

    /// A known list by its name, or one from a `.yaml` file, whose path is taken from `folder`.
    ///
    /// # Errors
    /// If there is no such list or file, or it is wrong; the message says where.
    pub fn find(name_or_path: &str, folder: &Path) -> Result<Self> {
        if let Some((name, text)) = KNOWN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text, Path::new(name));
        }
        let is_file = Path::new(name_or_path).extension().is_some_and(|e| e == "yaml" || e == "yml");
        if !is_file {
            let names = Self::names();
            let near = nearest(name_or_path, &names).map(|n| format!("; did you mean `{n}`?")).unwrap_or_default();
            let known = names.join("`, `");
            return Err(Error::Usage(format!(
                "cost model `{name_or_path}`: expected one of `{known}`, or a .yaml file{near}"
            )));
        }
        let path = folder.join(name_or_path);
        let length = std::fs::metadata(&path).map_err(Error::io(&path))?.len();
        if length > LONGEST {
            let path = path.display();
            return Err(Error::Usage(format!(
                "{path}: expected a price list of {LONGEST} bytes or less, got {length}"
            )));
        }
        let model = Self::parse(&std::fs::read_to_string(&path).map_err(Error::io(&path))?, &path)?;
        model.check_name(&path)?;
        Ok(model)
    }

    /// Refuses a file whose list has the name of a known one and other prices: a name stands for one list in every report.
    fn check_name(&self, path: &Path) -> Result<()> {
        let Some((_, text)) = KNOWN.iter().find(|(name, _)| *name == self.name) else { return Ok(()) };
        if Self::parse(text, path)?.key() == self.key() {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{}: `name`: `{}` comes with the program and has other prices: expected a name of its own",
            path.display(),
            self.name
        )))
    }

    /// The known lists, each with its source and prices in words.
    #[must_use]
    pub fn known_in_words() -> BTreeMap<String, String> {
        let read =
            |(name, text): (&str, &str)| Some((name.to_owned(), serde_yaml::from_str::<Self>(text).ok()?.in_words()));
        KNOWN.into_iter().filter_map(read).collect()
    }

    /// Its source and its prices.
    fn in_words(&self) -> String {
        let priced = [
            ("multiply–accumulate", self.mac_pj),
            ("accumulate", self.ac_pj),
            ("event", self.event_pj),
            ("element-wise operation", self.elementwise_pj),
            ("neuron update", self.neuron_update_pj),
        ];
        let mut prices: Vec<String> =
            priced.into_iter().filter_map(|(what, price)| Some(format!("{what} {} pJ", price?.0))).collect();
        prices.extend(self.memory.as_ref().map(|memory| {
            let least = memory.levels.first().map_or(memory.beyond_pj, |level| level.access_pj);
            format!("{} bits of memory {} to {} pJ by its size", memory.access_bits, least.0, memory.beyond_pj.0)
        }));
        format!("{} ({}): {}", self.source, self.technology, prices.join(", "))
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let wrong = |problem: String| Error::Usage(format!("{}: {problem}", path.display()));
        // the places are in the library's words; "fields" are keys here
        let in_words =
            |e: serde_yaml::Error| e.to_string().replace("missing field", "missing key").replace(" field `", " key `");
        let model: Self = serde_yaml::from_str(text).map_err(|e| wrong(in_words(e)))?;
        if model.name.trim().is_empty() || model.source.trim().is_empty() {
            return Err(wrong("expected a `name` and a `source`, got an empty one".into()));
        }
        let bits = |key: &str, bits: u32| match bits {
            1..=4096 => Ok(()),
            _ => Err(wrong(format!("`{key}`: expected 1 to 4096, got {bits}"))),
        };
        bits("word_bits", model.word_bits)?;
        if let Some(memory) = &model.memory {
            bits("memory.access_bits", memory.access_bits)?;
            if let Some(pair) = memory.levels.windows(2).find(|pair| pair[0].up_to_bytes >= pair[1].up_to_bytes) {
                let [a, b] = [pair[0].up_to_bytes, pair[1].up_to_bytes];
                return Err(wrong(format!("`memory.levels`: expected ascending sizes, got {a} before {b}")));
            }
        }
        if let Some(bits) = model.mac_by_bits.keys().find(|bits| !(1..=MOST_BITS as u32).contains(bits)) {
            return Err(wrong(format!("`mac_by_bits`: expected 1 to {MOST_BITS} bits, got {bits}")));
        }
        if model.ac_pj.is_some() && model.event_pj.is_some() {
            let what = "a burst is paid by its spikes or once";
            return Err(wrong(format!("expected one of `ac_pj` and `event_pj`, got both: {what}")));
        }
        if model.shift_pj.is_some() && model.ac_pj.is_none() {
            return Err(wrong(
                "`shift_pj`: expected `ac_pj` beside it, got none: a shift comes on top of an accumulate".into(),
            ));
        }
        let prices = [model.mac_pj, model.ac_pj, model.event_pj, model.elementwise_pj, model.neuron_update_pj];
        if prices.iter().all(Option::is_none) {
            return Err(wrong("expected at least one price, got none".into()));
        }
        Ok(model)
    }

    /// What tells price lists apart: the numbers, not the words.
    #[must_use]
    pub fn key(&self) -> serde_json::Value {
        let words = Self { source: String::new(), technology: String::new(), notes: None, ..self.clone() };
        serde_json::json!(words)
    }

    fn words_pj(&self, words: u64, numbers: u64) -> Option<f64> {
        let memory = self.memory.as_ref()?;
        let bytes = u128::from(numbers) * u128::from(self.word_bits) / 8;
        let fits = memory.levels.iter().find(|level| bytes <= u128::from(level.up_to_bytes));
        let access = fits.map_or(memory.beyond_pj.0, |level| level.access_pj.0);
        Some(words as f64 * f64::from(self.word_bits) / f64::from(memory.access_bits) * access)
    }

    /// Per product of a weight with an activation of `bits` bits.
    fn code_pj(&self, bits: u32) -> Option<Picojoules> {
        let serial = self.ac_pj.map(|ac| ac.0 * f64::from(bits.saturating_sub(1).max(1)));
        let fallback = || [serial, self.mac_pj.map(|mac| mac.0)].into_iter().flatten().reduce(f64::min).map(Picojoules);
        self.mac_by_bits.get(&bits).copied().or_else(fallback)
    }

    /// Of one kind of work, with so many neuron updates in it.
    #[must_use]
    pub fn energy(&self, work: &Work, neuron_updates: u64, sizes: Sizes) -> Energy {
        let price = |count: u64, price: Option<Picojoules>| count as f64 * price.map_or(0.0, |p| p.0);
        let codes: Vec<_> = work.code_macs.each().map(|(bits, count)| (count, self.code_pj(bits))).collect();
        let full = work.weight_macs() - work.code_macs.sum();
        let by_bits: f64 = codes.iter().map(|&(count, each)| price(count, each)).sum();
        let spikes =
            price(work.acs, self.ac_pj) + price(work.weighted, self.shift_pj) + price(work.events, self.event_pj);
        let synaptic_pj = price(full, self.mac_pj) + by_bits + spikes;
        let others = price(work.activation_macs, self.mac_pj) + price(work.elementwise, self.elementwise_pj);
        let arithmetic_pj = synaptic_pj + others + price(neuron_updates, self.neuron_update_pj);
        let traffic =
            self.words_pj(work.weight_words, sizes.parameters).zip(self.words_pj(work.state_words, sizes.state));
        let kinds = [
            (full + work.activation_macs, self.mac_pj),
            (work.acs, self.ac_pj.or(self.event_pj)),
            (work.elementwise, self.elementwise_pj),
        ];
        let all = kinds.into_iter().chain(codes);
        let unpriced: u64 = all.filter(|(_, price)| price.is_none()).map(|(count, _)| count).sum();
        Energy {
            arithmetic_pj,
            with_traffic_pj: traffic.map(|(weights, state)| arithmetic_pj + weights + state),
            synaptic_pj,
            coverage: if unpriced == 0 { 1.0 } else { 1.0 - unpriced as f64 / work.operations() as f64 },
        }
    }

    /// Of the forward pass and of learning.
    #[must_use]
    pub fn energies(&self, counts: &OpCounts, sizes: Sizes) -> [Energy; 2] {
        let learning = Sizes { state: sizes.state + sizes.traces, ..sizes };
        let learned = self.energy(&counts.learning(), counts.passes_neuron_updates, learning);
        [self.energy(&counts.forward, counts.neuron_updates, sizes), learned]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use learner::operations::CodeMacs;

    use super::*;

    fn work() -> Work {
        let counts = Work { macs: 100, activation_macs: 40, acs: 1000, events: 300, ..Work::default() };
        Work { elementwise: 10, weight_words: 64, state_words: 32, ..counts }
    }

    #[test]
    fn known_lists_are_readable_and_hold_the_published_prices() {
        for name in CostModel::names() {
            assert_eq!(CostModel::find(name, Path::new("")).unwrap().name, name);
        }
        let prices = |name| {
            let m = CostModel::find(name, Path::new("")).unwrap();
            [m.mac_pj, m.ac_pj, m.neuron_update_pj].map(|p| p.map(f64::from))
        };
        assert_eq!(prices("horowitz-2014-fp32"), [Some(4.6), Some(0.9), None]);
        assert_eq!(prices("horowitz-2014-fp16"), [Some(1.5), Some(0.4), None]);
        assert_eq!(prices("horowitz-2014-int8"), [Some(0.23), Some(0.03), None]);
        assert_eq!(prices("loihi-2018"), [None, Some(23.6), Some(81.0)]);
        assert_eq!(prices("loihi-2-graded"), [None, None, Some(81.0)]);
        assert_eq!(CostModel::default().name, "horowitz-2014-fp32");
    }

    #[test]
    fn a_known_name_stands_for_one_list() {
        let dir = tempfile::tempdir().unwrap();
        let (name, text) = KNOWN[0];
        std::fs::write(dir.path().join("same.yaml"), text.replace("45 nm", "another process, the same prices"))
            .unwrap();
        assert_eq!(CostModel::find("same.yaml", dir.path()).unwrap().name, name);
        std::fs::write(dir.path().join("other.yaml"), text.replace("ac_pj: 0.9", "ac_pj: 0.1")).unwrap();
        let said = CostModel::find("other.yaml", dir.path()).unwrap_err().to_string();
        assert!(said.ends_with("has other prices: expected a name of its own") && said.contains(name), "{said}");
    }

    #[test]
    fn known_lists_are_told_in_words() {
        let words = CostModel::known_in_words();
        assert_eq!(words.keys().map(String::as_str).collect::<BTreeSet<_>>(), CostModel::names().into());
        let horowitz = &words["horowitz-2014-fp32"];
        let prices = "figure 1.1.9 (45 nm, 0.9 V): multiply–accumulate 4.6 pJ, accumulate 0.9 pJ, element-wise operation 3.7 pJ, 64 bits \
                      of memory 10 to 1300 pJ by its size";
        assert!(horowitz.starts_with("M. Horowitz, ") && horowitz.ends_with(prices), "{horowitz}");
    }

    #[test]
    fn energies_are_sums_of_counts_times_prices() {
        let model = CostModel::default();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.abs(), "{a} {b}"); // f64 rounding of a few terms
        // 2000 parameters take 8000 bytes: the smallest memory; 5000 numbers of state take 20 kB: the next
        let e = model.energy(&work(), 7, Sizes { parameters: 2000, state: 5000, traces: 0 });
        near(e.synaptic_pj, 60.0 * 4.6 + 1000.0 * 0.9);
        near(e.arithmetic_pj, 100.0 * 4.6 + 1000.0 * 0.9 + 10.0 * 3.7);
        near(e.with_traffic_pj.unwrap(), e.arithmetic_pj + 32.0 * 10.0 + 16.0 * 20.0);
        assert_eq!(e.coverage.to_bits(), 1f64.to_bits());
        let e = model.energy(&work(), 0, Sizes { parameters: 1 << 20, state: 262_144, traces: 0 });
        near(e.with_traffic_pj.unwrap(), e.arithmetic_pj + 32.0 * 1300.0 + 16.0 * 100.0);
    }

    /// Half of the products with weights are of codes: 20 of 2 bits and 10 of 4.
    fn coded() -> Work {
        Work { code_macs: CodeMacs([0, 20, 0, 10, 0, 0, 0, 0]), ..work() }
    }

    #[test]
    fn codes_are_priced_by_their_bits() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.abs(), "{a} {b}"); // f64 rounding of a few terms
        let model = CostModel::default();
        let synaptic = |model: &CostModel| model.energy(&coded(), 0, Sizes::default()).synaptic_pj;
        near(synaptic(&model), 30.0 * 4.6 + 20.0 * 0.9 + 10.0 * 1.125 + 1000.0 * 0.9);
        // listed nowhere: three accumulates for four bits, one for two
        let unlisted = CostModel { mac_by_bits: BTreeMap::new(), ..model.clone() };
        near(synaptic(&unlisted), 30.0 * 4.6 + 20.0 * 0.9 + 10.0 * 2.7 + 1000.0 * 0.9);
        // but never more than a multiplication
        let cheap = CostModel { mac_pj: Some(Picojoules(1.0)), ..unlisted };
        near(synaptic(&cheap), 30.0 + 20.0 * 0.9 + 10.0 + 1000.0 * 0.9);
        let loihi = CostModel::find("loihi-2018", Path::new("")).unwrap();
        near(synaptic(&loihi), (20.0 + 30.0 + 1000.0) * 23.6);
        near(loihi.energy(&coded(), 0, Sizes::default()).coverage, 1030.0 / 1110.0);
    }

    /// The lists' own rule, from the numbers of their source: an addition, and from three bits on a multiplication of the
    /// weight's digits by the bits of the magnitude.
    #[test]
    fn prices_by_bits_follow_the_rule_that_the_lists_state() {
        for (name, addition, digits) in
            [("horowitz-2014-fp32", 0.9, 24.0), ("horowitz-2014-fp16", 0.4, 11.0), ("horowitz-2014-int8", 0.03, 8.0)]
        {
            let model = CostModel::find(name, Path::new("")).unwrap();
            for bits in 1..=MOST_BITS as u32 {
                let multiplication = if bits > 2 { 0.2 * digits * f64::from(bits - 1) / 64.0 } else { 0.0 };
                let price = model.mac_by_bits[&bits].0;
                assert!((price - addition - multiplication).abs() < 1e-9, "{name}, {bits} bits: {price}");
                assert!(price <= model.mac_pj.unwrap().0, "{name}: dearer than in full precision");
            }
        }
    }

    #[test]
    fn graded_spikes_are_paid_once() {
        let graded = CostModel::find("loihi-2-graded", Path::new("")).unwrap();
        let e = graded.energy(&coded(), 7, Sizes::default());
        assert!((e.arithmetic_pj - ((300.0 + 30.0) * 23.6 + 7.0 * 81.0)).abs() < 1e-6, "{e:?}");
        assert!((e.coverage - 1030.0 / 1110.0).abs() < 1e-12);
    }

    /// A digit is an accumulate and a shift; a graded spike is one event however many digits it has.
    #[test]
    fn digits_of_weighted_spikes_are_paid_with_their_shift() {
        let weighted = Work { weighted: 250, ..work() };
        let synaptic = |name| {
            let model = CostModel::find(name, Path::new("")).unwrap();
            [work(), weighted].map(|w| model.energy(&w, 0, Sizes::default()).synaptic_pj)
        };
        for (name, shift) in [("horowitz-2014-fp32", 0.03), ("horowitz-2014-fp16", 0.03), ("horowitz-2014-int8", 0.03)]
        {
            let [without, with] = synaptic(name);
            assert!((with - without - 250.0 * shift).abs() < 1e-9, "{name}: {without} {with}");
        }
        for name in ["loihi-2018", "loihi-2-graded"] {
            let [without, with] = synaptic(name);
            assert_eq!(without.to_bits(), with.to_bits(), "{name}: the operation's price has it");
        }
    }

    #[test]
    fn a_price_list_survives_its_own_files() {
        for name in CostModel::names() {
            let model = CostModel::find(name, Path::new("")).unwrap();
            let json: CostModel = serde_json::from_value(serde_json::json!(model)).unwrap();
            let yaml: CostModel = serde_yaml::from_str(&serde_yaml::to_string(&model).unwrap()).unwrap();
            assert_eq!((&json, &yaml), (&model, &model));
        }
    }

    #[test]
    fn traces_are_memory_of_learning_alone() {
        let model = CostModel::default();
        let counts = OpCounts { forward: work(), traces: work(), ..OpCounts::default() };
        let sizes = Sizes { parameters: 2000, state: 5000, traces: 1 << 30 };
        let [forward, learning] = model.energies(&counts, sizes);
        assert_eq!(forward, model.energy(&work(), 0, Sizes { traces: 0, ..sizes }));
        assert!(learning.with_traffic_pj > forward.with_traffic_pj, "{forward:?} {learning:?}");
    }

    #[test]
    fn neurons_of_a_further_pass_are_priced_in_learning() {
        let loihi = CostModel::find("loihi-2018", Path::new("")).unwrap();
        let counts = OpCounts { neuron_updates: 7, passes_neuron_updates: 5, ..OpCounts::default() };
        let [forward, learning] = loihi.energies(&counts, Sizes::default()).map(|e| e.arithmetic_pj / 81.0);
        assert!((forward - 7.0).abs() < 1e-12 && (learning - 5.0).abs() < 1e-12, "{forward} {learning}");
    }

    #[test]
    fn what_has_no_price_lowers_the_coverage() {
        let loihi = CostModel::find("loihi-2018", Path::new("")).unwrap();
        let e = loihi.energy(&work(), 7, Sizes::default());
        assert!((e.arithmetic_pj - (1000.0 * 23.6 + 7.0 * 81.0)).abs() < 1e-6);
        assert!((e.coverage - 1000.0 / 1110.0).abs() < 1e-12 && e.with_traffic_pj.is_none());
    }

    #[test]
    fn wrong_lists_are_refused_with_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let good = KNOWN[0].1;
        let refuse = |text: &str| {
            std::fs::write(dir.path().join("x.yaml"), text).unwrap();
            CostModel::find("x.yaml", dir.path()).unwrap_err().to_string()
        };
        for (text, expected) in [
            (good.replace("mac_pj: 4.6", "mac_pj: -1"), "0 pJ or more, got -1"),
            (good.replace("mac_pj: 4.6", "mac_pj: .nan"), "0 pJ or more"),
            (good.replace("mac_pj", "macs_pj"), "unknown key `macs_pj`"),
            (good.replace("up_to_bytes: 8192", "up_to_bytes: 99999"), "ascending sizes, got 99999 before 32768"),
            (good.replace("{1: 0.9,", "{9: 0.9,"), "`mac_by_bits`: expected 1 to 8 bits, got 9"),
            (good.replace("word_bits: 32", "event_pj: 1\nword_bits: 32"), "one of `ac_pj` and `event_pj`, got both"),
            (good.replace("ac_pj: 0.9\n", ""), "`shift_pj`: expected `ac_pj` beside it"),
            (good.replace("word_bits: 32", "word_bits: 0"), "`word_bits`: expected 1 to 4096, got 0"),
            ("name: x\nsource: y\ntechnology: z\nword_bits: 8\n".to_owned(), "at least one price"),
            ("name: [".to_owned(), "x.yaml"),
            ("a".repeat(1 << 17), "bytes or less"),
        ] {
            let error = refuse(&text);
            assert!(error.contains(expected) && error.contains("x.yaml"), "{error}");
        }
        let error = CostModel::find("horowitz-2014-fp23", dir.path()).unwrap_err().to_string();
        assert!(error.contains("did you mean `horowitz-2014-fp32`?"), "{error}");
        assert!(CostModel::find("none.yaml", dir.path()).is_err());
    }
}
