use std::path::Path;

use super::*;
use crate::tasks::Scores;

const SPEC: GenerateText =
    GenerateText { train_bytes: bytes(30_000), valid_bytes: bytes(30_000), test_bytes: bytes(12_000) };

const fn bytes(number: u64) -> NonZeroU64 {
    NonZeroU64::new(number).unwrap()
}

fn part(text: &str) -> TextPart {
    TextPart::try_from(text.to_owned()).unwrap()
}

fn open(root: &Path, config: LanguageConfig) -> Language {
    let config = LanguageConfig { generate: Some(SPEC), ..config };
    text::generate(root, &config.spec().unwrap()).unwrap();
    Language::open(&config, root).unwrap()
}

fn bytes_of(task: &Language, part: Part) -> Vec<u8> {
    task.vocabulary.decode(&task.part(part).ids.to_vec()).unwrap()
}

/// What `harness run --scale sample` does with a file: nothing is in two parts, nothing is lost.
#[test]
fn a_file_cut_in_two_shares_no_article_and_loses_none() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("w");
    let cut = LanguageConfig {
        train_split: part("valid[:0.9]"),
        valid_split: part("valid[0.9:]"),
        ..LanguageConfig::default()
    };
    for vocabulary in [Unit::Byte, Unit::Word, Unit::Bpe] {
        let task = open(&root, LanguageConfig { vocabulary, vocabulary_size: 300, ..cut.clone() });
        let (train, valid) = (task.part(Part::Train), task.part(Part::Valid));
        let whole = std::fs::read(root.join("wiki.valid.tokens")).unwrap();
        let share = bytes_of(&task, Part::Train).len() as f64 / whole.len() as f64;
        // about 15 articles: the nearest boundary is within an article's length
        assert!((0.8..0.98).contains(&share), "{share}");
        if vocabulary == Unit::Byte {
            assert_eq!([bytes_of(&task, Part::Train), bytes_of(&task, Part::Valid)].concat(), whole);
            assert!(bytes_of(&task, Part::Valid).starts_with(b" \n = "));
        }
        assert!(train.ids.len() > 0 && !valid.articles.is_empty());
        assert_eq!(bytes_of(&task, Part::Test), std::fs::read(root.join("wiki.test.tokens")).unwrap());
    }
    let (a, b) = (open(&root, cut.clone()), open(&root, LanguageConfig::default()));
    assert_ne!(a.fingerprint(), b.fingerprint());
    let other = LanguageConfig { train_split: part("valid[:0.5]"), valid_split: part("valid[0.5:]"), ..cut };
    assert_ne!(a.fingerprint(), open(&root, other).fingerprint());
}

/// Line ends and marks of other systems change no number, and the results say that they were there.
#[test]
fn mended_texts_give_the_same_task_and_a_fact() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("w");
    let config = LanguageConfig { generate: None, ..LanguageConfig::default() };
    let cut = LanguageConfig { train_split: part("valid[:0.9]"), valid_split: part("valid[0.9:]"), ..config.clone() };
    let clean = open(&root, config.clone());
    assert!(clean.account().notices().is_empty() && clean.facts().len() == 1, "the floor alone");
    let path = root.join("wiki.valid.tokens");
    let text = std::fs::read_to_string(&path).unwrap();
    for changed in [text.replace('\n', "\r\n"), format!("\u{FEFF}{text}"), text.trim_end_matches('\n').to_owned()] {
        std::fs::write(&path, changed).unwrap();
        for config in [&config, &cut] {
            let task = Language::open(config, &root).unwrap();
            let facts = task.facts();
            let [fact] = &facts[..] else { panic!("{facts:?}") };
            assert_eq!((fact.name.as_str(), fact.value), ("data_repaired", Some(1.0)));
        }
        assert_eq!(Language::open(&config, &root).unwrap().fingerprint(), clean.fingerprint());
    }
    for damaged in ["", " \n \n", "<html></html>"] {
        std::fs::write(&path, damaged).unwrap();
        let error = Language::open(&config, &root).err().unwrap().to_string();
        assert!(error.contains("wiki.valid.tokens") && error.contains("fetch the file again"), "{error}");
    }
}

#[test]
fn articles_have_every_token_once_and_the_tokens_are_those_of_the_whole_text() {
    let dir = tempfile::tempdir().unwrap();
    for vocabulary in [Unit::Byte, Unit::Word, Unit::Bpe] {
        let config = LanguageConfig { vocabulary, vocabulary_size: 300, ..LanguageConfig::default() };
        let task = open(&dir.path().join("w"), config);
        let bytes = std::fs::read(dir.path().join("w/wiki.test.tokens")).unwrap();
        let whole = task.vocabulary.encode(&bytes).unwrap();
        let tokens = task.part(Part::Test);
        assert_eq!(
            (tokens.ids.to_vec(), tokens.words, tokens.unknown),
            (whole.ids.clone(), whole.words, whole.unknown)
        );
        assert!(tokens.articles.len() > 2 && tokens.articles.iter().all(|a| a.title.is_some()));
        let ranges: Vec<usize> = tokens.articles.iter().flat_map(|a| [a.tokens.start, a.tokens.end]).collect();
        assert!(ranges[0] == 0 && ranges.ends_with(&[tokens.ids.len()]));
        assert!(ranges[1..].chunks_exact(2).all(|pair| pair[0] == pair[1]), "one ends where the next begins");
        assert_eq!(tokens.articles.iter().map(|a| a.bytes).sum::<u64>(), whole.bytes);
    }
}

/// Scores with logits that depend on the place in the text alone: `ln p` differs from article to article.
fn scores(task: &Language, streams: usize, limit: Option<u64>) -> Scores {
    let source = task.evaluation(Part::Test, streams, 37, limit).unwrap();
    let mut scorer = task.scorer(Part::Test, streams, limit).unwrap();
    let vocabulary = task.vocabulary.size();
    for index in 0..source.segments() {
        let segment = source.segment(index).unwrap();
        let (b, k) = segment.input.dims2().unwrap();
        // the byte before says how sure the model is of zero: a spread that differs from article to article
        let input = segment.input.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        let mut logits = vec![0f32; b * k * vocabulary];
        for (i, &before) in input.iter().enumerate() {
            logits[i * vocabulary] = before as f32 / 32.0;
        }
        scorer.observe(&segment, &Tensor::from_vec(logits, (b, k, vocabulary), &Device::Cpu).unwrap()).unwrap();
    }
    scorer.finish()
}

#[test]
fn items_are_articles_whatever_the_lanes_and_their_sum_is_the_metric() {
    let dir = tempfile::tempdir().unwrap();
    let task = open(&dir.path().join("w"), LanguageConfig::default());
    let one = scores(&task, 1, None);
    let articles = task.part(Part::Test).articles.len();
    assert_eq!(one.predictions.len(), articles);
    let metric = |scores: &Scores, name: &str| scores.metrics.iter().find(|m| m.name == name).cloned().unwrap();
    let bits = metric(&one, "bits_per_byte");
    let (nats, bytes) = one.predictions.iter().fold((0.0, 0.0), |(nats, bytes), row| {
        assert_eq!(row.scores.len(), task.outputs().len());
        (nats + row.nll.unwrap(), bytes + row.scores[1])
    });
    assert!((bits.value.unwrap() - nats / bytes / std::f64::consts::LN_2).abs() < 1e-12);
    assert!((bits.n as f64 - bytes).abs() < 0.5);
    // resampling articles by hand, with numbers of its own: 8000 resamples of each place an end within a tenth of the width
    let (low, high) = (bits.low.unwrap(), bits.high.unwrap());
    let rows: Vec<(f64, f64)> = one.predictions.iter().map(|row| (row.nll.unwrap(), row.scores[1])).collect();
    let mut state = 1u64;
    let mut draws: Vec<f64> = (0..8000)
        .map(|_| {
            let (mut nats, mut bytes) = (0.0, 0.0);
            for _ in 0..rows.len() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let row = rows[((state >> 33) as usize) % rows.len()];
                (nats, bytes) = (nats + row.0, bytes + row.1);
            }
            nats / bytes / std::f64::consts::LN_2
        })
        .collect();
    draws.sort_by(f64::total_cmp);
    let tolerance = 0.1 * (draws[7800] - draws[200]);
    assert!((low - draws[200]).abs() < tolerance && (high - draws[7800]).abs() < tolerance, "{low} {high}");
    assert!(metric(&one, "perplexity").low.unwrap().ln() - metric(&one, "loss").low.unwrap() < 1e-12);
    for streams in [3, 16] {
        let more = scores(&task, streams, None);
        for (a, b) in one.predictions.iter().zip(&more.predictions) {
            assert_eq!(a.item, b.item);
            assert!((a.nll.unwrap() - b.nll.unwrap()).abs() < 1e-9 * a.nll.unwrap(), "{streams}");
        }
        assert_eq!(metric(&more, "scored_tokens").value, Some(task.part(Part::Test).ids.len() as f64));
    }
    // a prefix that ends within the second article has two items and an interval; one within the first has none
    let first = task.part(Part::Test).articles[0].tokens.end as u64;
    let two = scores(&task, 4, Some(first + 10));
    assert_eq!((two.predictions.len(), metric(&two, "scored_tokens").value), (2, Some((first + 10) as f64)));
    assert!(
        two.predictions[1].item.ends_with(&format!("(tokens {first}..{})", first + 10)),
        "{:?}",
        two.predictions[1]
    );
    assert!(metric(&two, "bits_per_byte").low.is_some());
    assert!(metric(&scores(&task, 4, Some(first - 10)), "bits_per_byte").low.is_none());
}

/// The entropy of the scored tokens' own frequencies: no distribution that looks at nothing before is better.
#[test]
fn frequencies_of_the_scored_text_are_a_level_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let task = open(&dir.path().join("w"), LanguageConfig::default());
    let found = |limit: Option<u64>, name: &str| {
        scores(&task, 4, limit).metrics.iter().find(|m| m.name == name).and_then(|m| m.value).unwrap()
    };
    for limit in [None, Some(1000)] {
        let text = bytes_of(&task, Part::Test);
        let text = &text[..limit.map_or(text.len(), |n| n as usize)];
        let mut counts = [0u32; 256];
        for &byte in text {
            counts[usize::from(byte)] += 1;
        }
        let shares = counts.into_iter().filter(|n| *n > 0).map(|n| f64::from(n) / text.len() as f64);
        let entropy = shares.map(|p| -p * p.log2()).sum::<f64>();
        assert!((found(limit, "unigram_bits_per_byte") - entropy).abs() < 1e-12, "{limit:?}");
        assert!((found(limit, "unigram_perplexity") - entropy.exp2()).abs() < 1e-9);
    }
    let words = task.part(Part::Test).articles.iter().map(|a| a.words).sum::<u64>() as f64;
    let bits = found(None, "unigram_bits_per_byte") * task.part(Part::Test).ids.len() as f64;
    assert!((found(None, "unigram_perplexity_per_word").log2() - bits / words).abs() < 1e-9);
}

/// A split that is another one by another name is refused, unless nothing is chosen; the marker goes with the folder.
#[test]
fn copies_of_a_split_under_another_name_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("w");
    let made = open(&root, LanguageConfig::default());
    let moved = dir.path().join("wikitext-103");
    std::fs::rename(&root, &moved).unwrap();
    let as_given = LanguageConfig::default();
    let of = |config: &LanguageConfig| Language::open(config, &moved).map_err(|e| e.to_string());
    for task in [&made, &of(&as_given).unwrap()] {
        assert_eq!(task.identity.identity, data::identity::Identity::Generated);
    }
    std::fs::remove_file(moved.join(data::identity::MARKER)).unwrap();
    assert_eq!(of(&as_given).unwrap().identity.identity, data::identity::Identity::Unverified);
    let files = ["train", "valid", "test"].map(|name| moved.join(format!("wiki.{name}.tokens")));
    for [from, to] in [[0, 1], [2, 1], [0, 2]] {
        let kept = std::fs::read(&files[to]).unwrap();
        std::fs::copy(&files[from], &files[to]).unwrap();
        let error = of(&as_given).err().unwrap();
        assert!(error.contains("have the same text"), "{error}");
        assert!(of(&LanguageConfig { selection: Selection::None, ..as_given.clone() }).is_ok());
        std::fs::write(&files[to], kept).unwrap();
    }
}
