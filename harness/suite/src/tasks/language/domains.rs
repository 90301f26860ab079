//! Texts in turn: one stream of phases, each of one of several texts, which come back.
//!
//! ```text
//! phase      1       2       3       4
//! text       A       B       C       A, where it stopped
//! ```
//!
//! Every phase has as many bytes. The learner is not told where one ends: lanes keep their state.

use std::path::{Component, Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tokens::{Ids, Tokens};
use super::{Lanes, Language, LanguageConfig, SEED, TextPart, Unit, text};
use crate::protocol::{Overlap, pairs};
use crate::tasks::{Domain, Misfit, Part, Segment, Source};
use data::account::{Account, inert};
use data::datasets::vocabulary::Vocabulary;
use data::datasets::wikitext::Text;
use data::error::{At, DataError, DataResult};
use data::files::sha256_hex;
use data::identity::{Found, Identity};
use learner::seeded_rng;
use rand::seq::SliceRandom;

/// A text among several.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextDomain {
    /// Its name: letters, digits and hyphens.
    pub name: String,
    /// Seed of its words and of what follows what, where text is generated; by default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Folder of its text in `root`, in the dataset's layout, where text is not generated; by default `root` itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// What to train on, where it is not the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_split: Option<TextPart>,
    /// What settings are chosen on, where it is not the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_split: Option<TextPart>,
    /// What the result is of, where it is not the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_split: Option<TextPart>,
    /// Seed of a substitution of its letters: another language to a model, with the same entropy. None by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cipher: Option<u64>,
}

impl TextDomain {
    /// The task that it is by itself.
    fn alone(&self, all: &LanguageConfig) -> LanguageConfig {
        LanguageConfig {
            train_split: self.train_split.unwrap_or(all.train_split),
            valid_split: self.valid_split.unwrap_or(all.valid_split),
            test_split: self.test_split.unwrap_or(all.test_split),
            domains: Vec::new(),
            phases: Vec::new(),
            ..all.clone()
        }
    }

    /// What tells its files from those of others.
    fn source(&self) -> (u64, &str) {
        (self.seed.unwrap_or(SEED), self.folder.as_deref().unwrap_or_default())
    }

    fn open(&self, all: &LanguageConfig, root: &Path) -> DataResult<Language> {
        let alone = self.alone(all);
        let spec = alone.spec_of(self.seed.unwrap_or(SEED));
        let folder = spec.map_or_else(
            || self.folder.as_ref().map_or_else(|| root.to_owned(), |folder| root.join(folder)),
            |spec| root.join(format!("seed-{}", spec.seed)),
        );
        if let Some(spec) = &spec {
            text::generate(&folder, spec)?;
        }
        let key = self.cipher.map(substitution);
        let mut language = Language::open_as(&alone, &folder, spec, |text| {
            if let Some(key) = &key {
                encipher(text, key);
            }
        })?;
        if self.cipher.is_some() && language.identity.identity.has_name() {
            language.identity = Found::new(Identity::Unverified, "its letters are substituted");
        }
        Ok(language)
    }
}

/// Which letter stands for each, from `a` on.
fn substitution(seed: u64) -> [u8; 26] {
    let mut key: [u8; 26] = std::array::from_fn(|letter| letter as u8);
    key.shuffle(&mut seeded_rng(seed, "language.cipher"));
    key
}

/// Substitutes the letters of a text, capitals by capitals.
fn encipher(text: &mut Text, key: &[u8; 26]) {
    for byte in &mut text.bytes {
        for first in [b'a', b'A'] {
            if let Some(letter) = byte.checked_sub(first).and_then(|letter| key.get(usize::from(letter))) {
                *byte = first + letter;
                break;
            }
        }
    }
    text.fingerprint = sha256_hex(&text.bytes);
}

/// The domain of each phase.
pub(super) fn order(config: &LanguageConfig) -> Vec<usize> {
    if config.phases.is_empty() {
        return (0..config.domains.len()).chain([0]).collect();
    }
    let place = |name: &String| config.domains.iter().position(|domain| domain.name == *name);
    config.phases.iter().filter_map(place).collect()
}

/// Checks what no key can tell alone.
pub(super) fn check(config: &LanguageConfig) -> Result<(), Misfit> {
    let misfit = |key: &'static str, expected: &str, got: String| Err(Misfit { key, expected: expected.into(), got });
    let LanguageConfig { domains, phases, .. } = config;
    if domains.is_empty() {
        let listed = phases.join(", ");
        return if phases.is_empty() { Ok(()) } else { misfit("phases", "`domains` that they name", inert(&listed)) };
    }
    if domains.len() < 2 {
        return misfit("domains", "two texts or more", domains.len().to_string());
    }
    if config.vocabulary != Unit::Byte {
        return misfit(
            "vocabulary",
            "`byte` with `domains`: texts in turn share no other vocabulary",
            config.vocabulary.name().into(),
        );
    }
    for (index, domain) in domains.iter().enumerate() {
        let name = &domain.name;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return misfit("domains", "names of letters, digits and hyphens", format!("`{}`", inert(name)));
        }
        let before = domains.iter().take(index);
        if before.clone().any(|other| other.name == *name) {
            return misfit("domains", "names that differ", format!("`{name}` twice"));
        }
        if let Some(other) =
            before.clone().find(|other| TextDomain { name: name.clone(), ..(*other).clone() } == *domain)
        {
            return misfit("domains", "texts that differ", format!("`{}` and `{name}` are the same", other.name));
        }
        if config.generate.is_some() && domain.folder.is_some() {
            return misfit("domains", "no `folder` where text is generated", format!("one of `{name}`"));
        }
        if config.generate.is_none() && domain.seed.is_some() {
            return misfit("domains", "no `seed` where text is not generated", format!("one of `{name}`"));
        }
        let is_inside =
            |folder: &String| Path::new(folder).components().all(|part| matches!(part, Component::Normal(_)));
        if let Some(folder) = domain.folder.as_ref().filter(|folder| !is_inside(folder)) {
            return misfit("domains", "folders in `root`, without `..`", format!("`{}`", inert(folder)));
        }
    }
    let order = order(config);
    if let Some(unknown) = phases.iter().find(|name| domains.iter().all(|domain| domain.name != **name)) {
        let names: Vec<&str> = domains.iter().map(|domain| domain.name.as_str()).collect();
        return misfit("phases", &format!("names of `domains`: {}", names.join(", ")), format!("`{}`", inert(unknown)));
    }
    if (1..domains.len()).any(|end| order.get(..=end).is_none_or(|first| first[..end].contains(&first[end]))) {
        return misfit("phases", "every domain once before one comes back", phases.join(", "));
    }
    if order.windows(2).any(|pair| pair[0] == pair[1]) {
        return misfit("phases", "another domain after each", phases.join(", "));
    }
    Ok(())
}

/// The first two parts of whatever domains that share text.
pub(super) fn overlap(config: &LanguageConfig) -> Option<Overlap> {
    let of = |part: fn(&LanguageConfig) -> TextPart| {
        let domains = config.domains.iter();
        domains.map(|domain| (domain, part(&domain.alone(config)))).collect::<Vec<_>>()
    };
    let parts = [
        ("train_split", of(|alone| alone.train_split)),
        ("valid_split", of(|alone| alone.valid_split)),
        ("test_split", of(|alone| alone.test_split)),
    ];
    let found = pairs(&parts, |a, b| {
        let shared = |(one, x): &(&TextDomain, TextPart)| {
            let other = b.iter().find(|(other, y)| one.source() == other.source() && x.overlaps(y));
            other.map(|(other, y)| format!("`{x}` of `{}` and `{y}` of `{}`", one.name, other.name))
        };
        a.iter().find_map(shared)
    });
    found.map(|found| Overlap { within: Some("domains"), ..found })
}

/// The domains of a stream.
pub(super) struct Domains {
    all: Vec<(String, Language)>,
    order: Vec<usize>,
}

impl Domains {
    pub(super) fn phases(&self) -> usize {
        self.order.len()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Domain<'_>> {
        self.all.iter().map(|(name, language)| Domain { name, task: language })
    }

    /// The domains in the order in which they come: before one comes back, each has come.
    pub(super) fn first_visits(&self) -> Vec<usize> {
        self.order[..self.all.len()].to_vec()
    }

    /// The last phase before each that had its domain.
    pub(super) fn held_against(&self) -> Vec<Option<usize>> {
        let last = |(phase, domain): (usize, &usize)| self.order[..phase].iter().rposition(|earlier| earlier == domain);
        self.order.iter().enumerate().map(last).collect()
    }
}

/// Reads the texts and lays out the stream.
///
/// # Errors
/// If files are missing or corrupt, or a text is shorter than its visits.
pub(super) fn open(config: &LanguageConfig, root: &Path) -> DataResult<Language> {
    let order = order(config);
    let open = |domain: &super::TextDomain| Ok((domain.name.clone(), domain.open(config, root)?));
    let mut all: Vec<(String, Language)> = config.domains.iter().map(open).collect::<DataResult<_>>()?;
    let stream = stream(&mut all, &order, root)?;
    let held_out = |part: Part| all.iter().flat_map(|(_, language)| language.bytes(part)).copied().collect::<Vec<u8>>();
    let vocabulary = Vocabulary::byte();
    let floors = all.iter().map(|(_, language)| Some((language.floor?, language.bytes(Part::Test).len() as f64)));
    let floor = floors.collect::<Option<Vec<(f64, f64)>>>().map(|floors| {
        floors.iter().map(|(floor, bytes)| floor * bytes).sum::<f64>()
            / floors.iter().map(|(_, bytes)| bytes).sum::<f64>()
    });
    let parts = [
        Tokens::unscored(&vocabulary, stream, None)?,
        Tokens::new(&vocabulary, &held_out(Part::Valid))?,
        Tokens::new(&vocabulary, &held_out(Part::Test))?,
    ];
    let mut account = Account::new();
    for (_, language) in &all {
        account.extend(language.account.clone());
    }
    let digests: Vec<&str> = all.iter().map(|(_, language)| language.fingerprint.as_str()).collect();
    // the least of what its texts are
    let is = |identity: Identity| {
        all.iter().map(|(_, language)| &language.identity).find(|found| found.identity == identity)
    };
    let ranks = [Identity::Unverified, Identity::Generated, Identity::Subset, Identity::Published];
    let least = ranks.into_iter().find_map(is).cloned();
    let identity = least.unwrap_or_else(|| Found::new(Identity::Unverified, "there is no text"));
    let fingerprint = sha256_hex(digests.join("+").as_bytes());
    Ok(Language { vocabulary, parts, fingerprint, floor, identity, account, domains: Some(Domains { all, order }) })
}

/// The training text of all phases, taken from the domains: of each domain one stretch after the other.
fn stream(all: &mut [(String, Language)], order: &[usize], root: &Path) -> DataResult<Vec<u8>> {
    let visits = |domain: usize| order.iter().filter(|&&other| other == domain).count().max(1);
    let taken: Vec<Vec<u8>> = all
        .iter_mut()
        .map(|(_, language)| match std::mem::replace(&mut language.parts[0].ids, Ids::Bytes(Vec::new())) {
            Ids::Bytes(bytes) => bytes,
            Ids::Wide(_) => Vec::new(),
        })
        .collect();
    let length = taken.iter().enumerate().map(|(domain, bytes)| bytes.len() / visits(domain)).min().unwrap_or(0);
    if length == 0 {
        let expected = "a byte of training text for each phase of every domain";
        return Err(DataError::corrupt(root, At::File, expected, "too short a text"));
    }
    let mut stream = Vec::with_capacity(length * order.len());
    for (phase, &domain) in order.iter().enumerate() {
        let before = order[..phase].iter().filter(|&&other| other == domain).count();
        stream.extend(taken[domain].iter().skip(before * length).take(length));
    }
    Ok(stream)
}

/// The lanes of each phase, one phase after the other.
pub(super) struct InTurn<'a>(pub(super) Vec<Lanes<'a>>);

impl InTurn<'_> {
    /// Segments of a phase.
    fn of_phase(&self) -> u64 {
        self.0.first().map_or(1, Source::segments)
    }
}

impl Source for InTurn<'_> {
    fn segments(&self) -> u64 {
        self.0.iter().map(Source::segments).sum()
    }

    fn seen_per_epoch(&self) -> u64 {
        self.0.iter().map(Source::seen_per_epoch).sum()
    }

    fn segment(&self, index: u64) -> DataResult<Segment> {
        let within = index % self.segments();
        let (phase, piece) = ((within / self.of_phase()) as usize, within % self.of_phase());
        let mut segment = self.0[phase].segment(piece)?;
        if phase > 0 {
            segment.starts.fill(false); // the stream goes on
        }
        Ok(segment)
    }

    fn changes(&self) -> Vec<u64> {
        (1..self.0.len() as u64).map(|phase| phase * self.of_phase()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::super::GenerateText;
    use super::*;
    use crate::tasks::Task;
    use learner::Targets;

    fn config(domains: &[TextDomain], phases: &[&str]) -> LanguageConfig {
        let bytes = |n| NonZeroU64::new(n).unwrap();
        LanguageConfig {
            generate: Some(GenerateText {
                train_bytes: bytes(9_000),
                valid_bytes: bytes(3_000),
                test_bytes: bytes(4_000),
            }),
            domains: domains.to_vec(),
            phases: phases.iter().map(|name| (*name).to_owned()).collect(),
            ..LanguageConfig::default()
        }
    }

    fn domain(name: &str, seed: u64) -> TextDomain {
        TextDomain { name: name.into(), seed: Some(seed), ..TextDomain::default() }
    }

    fn three() -> Vec<TextDomain> {
        vec![domain("a", 1), domain("b", 2), TextDomain { cipher: Some(1), ..domain("c", 3) }]
    }

    /// The bytes that the streams of a source are to name, lane by lane, and whether they start.
    fn read(task: &Language, streams: usize) -> (Vec<Vec<u8>>, Vec<bool>, Vec<u64>) {
        let source = task.training(streams, 16, 1).unwrap();
        let (mut lanes, mut starts) = (vec![Vec::new(); streams], Vec::new());
        for index in 0..source.segments() {
            let segment = source.segment(index).unwrap();
            let Targets::Classes { class, .. } = &segment.targets else { panic!("classes") };
            for (lane, row) in lanes.iter_mut().zip(class.to_vec2::<u32>().unwrap()) {
                lane.extend(row.into_iter().map(|id| id as u8));
            }
            starts.push(segment.starts.contains(&true));
        }
        (lanes, starts, source.changes())
    }

    /// One stream reads A, B, C, and A where it stopped; it is told of no change.
    #[test]
    fn a_domain_that_comes_back_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let task = open(&config(&three(), &[]), dir.path()).unwrap();
        let text = |seed: u64| std::fs::read(dir.path().join(format!("seed-{seed}/wiki.train.tokens"))).unwrap();
        let length = text(1).len() / 2;
        let (lanes, starts, changes) = read(&task, 1);
        assert_eq!(lanes[0].len(), 4 * length);
        let phase = |number: usize| &lanes[0][number * length..(number + 1) * length];
        assert_eq!([phase(0), phase(3)].concat(), text(1)[..2 * length]);
        assert_eq!(phase(1), &text(2)[..length]);
        assert_ne!(phase(2), &text(3)[..length], "its letters are others");
        let is_letter = |byte: &u8| byte.is_ascii_alphabetic();
        assert!(phase(2).iter().zip(&text(3)).all(|(a, b)| is_letter(a) == is_letter(b) && (is_letter(a) || a == b)));
        let segments = length.div_ceil(16) as u64;
        assert_eq!(changes, [segments, 2 * segments, 3 * segments]);
        assert!(starts[0] && starts[1..].iter().all(|start| !start));
        assert_eq!(task.held_against(), [None, None, None, Some(0)]);
        // every lane of every phase is a stretch of its own
        let (lanes, ..) = read(&task, 3);
        let lane = length / 3;
        assert_eq!(lanes[1][..lane], text(1)[lane..2 * lane]);
        assert_eq!(lanes[2][lane..2 * lane], text(2)[2 * lane..3 * lane]);
    }

    /// The result is over the held-out parts of all, each of which a domain has alone.
    #[test]
    fn held_out_parts_are_those_of_the_domains_together() {
        let dir = tempfile::tempdir().unwrap();
        let task = open(&config(&three(), &["b", "a", "c", "b", "a"]), dir.path()).unwrap();
        for part in [Part::Valid, Part::Test] {
            let all = task.domains.as_ref().unwrap();
            let each: Vec<u8> = all.all.iter().flat_map(|(_, language)| language.bytes(part).to_vec()).collect();
            assert_eq!(task.bytes(part), each);
        }
        assert_eq!(task.domains().len(), 3);
        assert_eq!(
            (task.first_visits(), task.held_against()),
            (vec![1, 0, 2], vec![None, None, None, Some(0), Some(1)])
        );
        assert!(task.facts().iter().any(|fact| fact.name == "entropy_floor_bits_per_byte"));
        let other = open(&config(&three()[..2], &[]), dir.path()).unwrap();
        assert_ne!(task.fingerprint(), other.fingerprint());
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let said = |domains: &[TextDomain], phases: &[&str]| {
            let misfit = check(&config(domains, phases)).err();
            misfit.map(|misfit| format!("{}: {}, expected {}", misfit.key, misfit.got, misfit.expected))
        };
        assert_eq!(said(&three(), &[]), None);
        assert_eq!(said(&three(), &["c", "a", "b", "c", "a"]), None);
        let cases: [(&[TextDomain], &[&str], &str); 9] = [
            (&[], &["a"], "phases: a, expected `domains`"),
            (&three()[..1], &[], "domains: 1, expected two"),
            (&[domain("a", 1), domain("a", 2)], &[], "`a` twice"),
            (&[domain("a", 1), domain("b", 1)], &[], "`a` and `b` are the same"),
            (&[domain("a", 1), domain("b 2", 1)], &[], "letters, digits and hyphens"),
            (&three(), &["a", "b", "d"], "phases: `d`, expected names of `domains`: a, b, c"),
            (&three(), &["a", "b", "a", "c"], "every domain once"),
            (&three(), &["a", "b"], "every domain once"),
            (&three(), &["a", "b", "c", "c"], "another domain after each"),
        ];
        for (domains, phases, expected) in cases {
            let said = said(domains, phases).unwrap_or_default();
            assert!(said.contains(expected), "{expected}: {said}");
        }
        let word = LanguageConfig { vocabulary: Unit::Word, ..config(&three(), &[]) };
        let misfit = check(&word).unwrap_err();
        assert_eq!((misfit.key, misfit.got.as_str()), ("vocabulary", "word"));
        let folder = TextDomain { seed: None, folder: Some("x".into()), ..domain("b", 2) };
        assert!(said(&[domain("a", 1), folder.clone()], &[]).unwrap().contains("no `folder`"));
        let published = LanguageConfig { generate: None, ..config(&[], &[]) };
        let check = |domains: Vec<TextDomain>| check(&LanguageConfig { domains, ..published.clone() });
        assert!(check(vec![domain("a", 1), folder.clone()]).unwrap_err().expected.contains("no `seed`"));
        let outside = TextDomain { folder: Some("../x".into()), ..folder.clone() };
        assert!(check(vec![outside, folder.clone()]).unwrap_err().expected.contains("without `..`"));
        let root = TextDomain { name: "a".into(), ..TextDomain::default() };
        assert_eq!(check(vec![root, folder]), Ok(()));
    }

    /// A domain must not learn what another is scored on; in another folder or of another seed it is another text.
    #[test]
    fn no_part_of_one_domain_is_another_part_of_another() {
        let part = |text: &str| Some(TextPart::try_from(text.to_owned()).unwrap());
        let published =
            |domains: Vec<TextDomain>| LanguageConfig { generate: None, domains, ..LanguageConfig::default() };
        let named = |name: &str| TextDomain { name: name.into(), ..TextDomain::default() };
        let a = TextDomain { train_split: part("valid[:0.5]"), valid_split: part("valid[0.9:]"), ..named("a") };
        let b = TextDomain {
            train_split: part("valid[0.5:0.95]"),
            valid_split: part("valid[0.95:]"),
            cipher: Some(1),
            ..named("b")
        };
        let found = overlap(&published(vec![a.clone(), b.clone()])).unwrap();
        assert_eq!(found.keys, ["train_split", "valid_split"]);
        assert_eq!(found.shared, "`valid[0.5:0.95]` of `b` and `valid[0.9:]` of `a`");
        let elsewhere = TextDomain { folder: Some("b".into()), ..b.clone() };
        assert_eq!(overlap(&published(vec![a.clone(), elsewhere])), None);
        assert_eq!(overlap(&published(vec![a, TextDomain { train_split: part("valid[0.5:0.9]"), ..b }])), None);
    }

    #[test]
    fn a_substitution_is_one() {
        let key = substitution(1);
        let mut sorted = key;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..26));
        assert_ne!(key, substitution(2));
        let mut text = Text { bytes: b"Aa Zz [@ @-@ {`".to_vec(), fingerprint: String::new() };
        encipher(&mut text, &key);
        assert_eq!(text.bytes[0], text.bytes[1] - 32);
        assert_eq!(text.bytes[5..], b" [@ @-@ {`"[..]);
        assert_eq!(text.fingerprint, sha256_hex(&text.bytes));
    }
}
