//! Tests of the generated dataset: its bytes, its layout, and how hard it is to learn.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::*;
use crate::datasets::ptbxl::{PtbXl, SUPERCLASSES};

fn generated(records: usize, seed: u64, with_500_hz: bool) -> (tempfile::TempDir, PtbXl) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("ptb-xl");
    generate(&root, &EcgSpec { records, seed, with_500_hz }).unwrap();
    let data = PtbXl::open(&root).unwrap();
    (dir, data)
}

/// Every file of the dataset below a folder, by path: the marker is none.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(crate::identity::MARKER) {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn bytes_are_those_of_this_version() {
    let (dir, _) = generated(12, 7, true);
    let mut hash = Sha256::new();
    for (name, bytes) in files(&dir.path().join("ptb-xl")) {
        hash.update(name);
        hash.update(bytes);
    }
    let sha256 = crate::files::hex(&hash.finalize());
    // If this changes on purpose, raise GENERATOR_VERSION.
    assert_eq!(
        (GENERATOR_VERSION, sha256.as_str()),
        (1, "a88326537c0d1455879b41b149841e22c62bc28c33eb99fcedf78cc0145cb28d")
    );
}

#[test]
fn same_specification_same_bytes_on_any_number_of_threads() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| generated(20, 3, false));
    let many = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap().install(|| generated(20, 3, false));
    let [one, many] = [one, many].map(|(dir, _)| files(dir.path()));
    assert!(one == many);
    assert_eq!(one.len(), 2 + 2 * 20);
    // The 100 Hz signals do not depend on whether the 500 Hz ones are written.
    let both = files(generated(20, 3, true).0.path());
    assert!(one.iter().all(|(name, bytes)| both[name] == *bytes));
    let other = files(generated(20, 4, false).0.path());
    assert!(one != other);
}

#[test]
fn an_existing_folder_is_kept_if_it_is_the_dataset_and_refused_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("deep/ptb-xl");
    let spec = EcgSpec { records: 3, seed: 1, with_500_hz: false };
    generate(&root, &spec).unwrap();
    let stamp = || std::fs::metadata(root.join("ptbxl_database.csv")).unwrap().modified().unwrap();
    let before = stamp();
    generate(&root, &spec).unwrap();
    assert_eq!(stamp(), before);
    for other in [EcgSpec { seed: 2, ..spec }, EcgSpec { records: 4, ..spec }, EcgSpec { with_500_hz: true, ..spec }] {
        assert!(matches!(generate(&root, &other), Err(DataError::Corrupt { .. })));
    }
    assert_eq!(std::fs::read_dir(dir.path().join("deep")).unwrap().count(), 1, "no scratch folder stays");
    assert!(generate(&dir.path().join("none"), &EcgSpec { records: 0, ..spec }).is_err());
    let empty = dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    generate(&empty, &spec).unwrap();
    assert_eq!(PtbXl::open(&empty).unwrap().entries().len(), 3);
}

#[test]
fn layout_proportions_and_folds_are_like_the_publishers() {
    let (_dir, data) = generated(400, 1, false);
    let entries = data.entries();
    assert_eq!(entries[0].filename_lr, "records100/00000/00001_lr");
    assert!(data.missing(Rate::Hz100).is_empty());
    assert_eq!(data.missing(Rate::Hz500).len(), 400);
    let count = |wanted: &dyn Fn(&[bool]) -> bool| entries.iter().filter(|entry| wanted(&entry.labels)).count();
    let norm = count(&|labels| labels[0]);
    let two = count(&|labels| labels.iter().filter(|&&label| label).count() == 2);
    assert!((144..=176).contains(&norm), "{norm}");
    assert!((48..=72).contains(&two), "{two}");
    assert_eq!(count(&|labels| labels.contains(&true)), 400);
    assert_eq!(count(&|labels| labels[0] && labels[1..].contains(&true)), 0, "normal and diseased");
    let mut fold_of: HashMap<u64, u8> = HashMap::new();
    for entry in entries {
        assert_eq!(*fold_of.entry(entry.patient_id).or_insert(entry.fold), entry.fold, "one fold per patient");
    }
    assert!(fold_of.len() < entries.len(), "some patients have several records");
    for fold in 1..=10 {
        let members = data.select(&[fold]);
        assert!((34..=46).contains(&members.len()), "fold {fold}: {}", members.len());
        for (class, name) in SUPERCLASSES.iter().enumerate() {
            assert!(members.iter().any(|&index| entries[index].labels[class]), "fold {fold} has no {name}");
        }
    }
}

#[test]
fn limb_leads_obey_einthoven_and_goldberger() {
    let (_dir, data) = generated(6, 2, true);
    for rate in [Rate::Hz100, Rate::Hz500] {
        for record in data.load_many(&[0, 1, 2, 3, 4, 5], rate).unwrap() {
            assert_eq!(record.len(), rate.samples() * 12);
            for frame in record.chunks(12) {
                let [i, ii, iii, avr, avl, avf] = [0, 1, 2, 3, 4, 5].map(|lead| f64::from(frame[lead]));
                // Each is off by at most half a microvolt, and held in f32 (below 1e-7 here).
                assert!((i + iii - ii).abs() < 0.0016);
                assert!((2.0 * avr + i + ii).abs() < 0.0021);
                assert!((2.0 * avl - i + iii).abs() < 0.0021);
                assert!((2.0 * avf - ii - iii).abs() < 0.0021);
            }
            let highest = record.iter().fold(0.0_f32, |highest, sample| highest.max(sample.abs()));
            assert!((0.3..6.0).contains(&highest), "{highest} mV");
        }
    }
}

/// Learnable by a small model but not given away: a linear classifier on averaged beats does well, not perfectly, and
/// the leads' means tell next to nothing.
#[test]
fn classes_are_separable_by_shape_and_not_by_offset() {
    let (_dir, data) = generated(400, 20, false);
    let train = data.select(&[1, 2, 3, 4, 5, 6, 7]);
    let test = data.select(&[8, 9, 10]);
    let features = |indices: &[usize], feature: &dyn Fn(&[f32]) -> Vec<f64>| -> Vec<Vec<f64>> {
        data.load_many(indices, Rate::Hz100).unwrap().iter().map(|record| feature(record)).collect()
    };
    let labels = |indices: &[usize]| -> Vec<[bool; 5]> {
        indices.iter().map(|&i| data.entries()[i].labels.as_slice().try_into().unwrap()).collect()
    };
    let aucs = |feature: &dyn Fn(&[f32]) -> Vec<f64>| -> Vec<f64> {
        let scores = ridge(&features(&train, feature), &labels(&train), &features(&test, feature));
        (0..5)
            .map(|class| {
                let of = |row: &[f64; 5]| row[class];
                let truth: Vec<bool> = labels(&test).iter().map(|row| row[class]).collect();
                auc(&scores.iter().map(of).collect::<Vec<_>>(), &truth)
            })
            .collect()
    };
    let by_shape = aucs(&average_beat);
    let by_offset = aucs(&lead_means);
    println!("AUC by shape {by_shape:.3?}, by offset {by_offset:.3?}");
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    assert!((0.90..0.99).contains(&mean(&by_shape)), "{by_shape:?}");
    assert!(by_shape.iter().all(|&auc| auc > 0.8), "{by_shape:?}");
    // 120 records: the standard error of an AUC around 0.5 is about 0.05.
    assert!((by_offset[0] - 0.5).abs() < 0.15, "NORM by offset: {}", by_offset[0]);
    assert!(mean(&by_offset) < 0.62, "{by_offset:?}");
}

/// Mean of each lead.
fn lead_means(record: &[f32]) -> Vec<f64> {
    (0..12).map(|lead| record.iter().skip(lead).step_by(12).map(|&s| f64::from(s)).sum::<f64>() / 1000.0).collect()
}

/// The beats of a record, averaged: 8 leads from 250 ms before to 450 ms after R, in steps of 20 ms.
fn average_beat(record: &[f32]) -> Vec<f64> {
    let frames: Vec<&[f32]> = record.chunks(12).collect();
    let slope: Vec<f32> = std::iter::once(0.0)
        .chain(frames.windows(2).map(|pair| pair[0].iter().zip(pair[1]).map(|(a, b)| (a - b).powi(2)).sum()))
        .collect();
    let highest = slope.iter().copied().fold(0.0, f32::max);
    let mut beats: Vec<usize> = Vec::new();
    for (at, _) in slope.iter().enumerate().filter(|(_, s)| **s > 0.35 * highest) {
        match beats.last_mut() {
            Some(last) if at < *last + 30 => {
                if slope[at] > slope[*last] {
                    *last = at;
                }
            }
            _ => beats.push(at),
        }
    }
    beats.retain(|&beat| beat >= 25 && beat + 45 <= frames.len());
    let mut features = Vec::new();
    for lead in [0, 1, 6, 7, 8, 9, 10, 11] {
        let at =
            |beat: usize, step: usize| f64::from(frames[beat + step - 25][lead] + frames[beat + step - 24][lead]) / 2.0;
        let level: Vec<f64> = (0..70)
            .step_by(2)
            .map(|step| beats.iter().map(|&beat| at(beat, step)).sum::<f64>() / beats.len().max(1) as f64)
            .collect();
        let middle = level.iter().sum::<f64>() / level.len() as f64;
        features.extend(level.iter().map(|value| value - middle));
    }
    features
}

/// Scores of `to` for each class by ridge regression in its dual form, (K + λI) α = ±1, score = k α, on standardised
/// features.
fn ridge(from: &[Vec<f64>], labels: &[[bool; 5]], to: &[Vec<f64>]) -> Vec<[f64; 5]> {
    const RIDGE: f64 = 0.3; // beside a kernel of mean 2 on the diagonal
    let (n, width) = (from.len(), from[0].len());
    let moments: Vec<(f64, f64)> = (0..width)
        .map(|f| {
            let mean = from.iter().map(|row| row[f]).sum::<f64>() / n as f64;
            let variance = from.iter().map(|row| (row[f] - mean).powi(2)).sum::<f64>() / n as f64;
            (mean, variance.sqrt().max(1e-9))
        })
        .collect();
    let standard = |rows: &[Vec<f64>]| -> Vec<Vec<f64>> {
        rows.iter().map(|row| row.iter().zip(&moments).map(|(x, (mean, sd))| (x - mean) / sd).collect()).collect()
    };
    let (from, to) = (standard(from), standard(to));
    let kernel = |a: &[f64], b: &[f64]| 1.0 + a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>() / width as f64;
    let mut system: Vec<Vec<f64>> = Vec::new(); // [n, n + 5]
    for (i, targets) in labels.iter().enumerate() {
        let mut row: Vec<f64> = from.iter().map(|other| kernel(&from[i], other)).collect();
        row[i] += RIDGE;
        row.extend(targets.map(|label| if label { 1.0 } else { -1.0 }));
        system.push(row);
    }
    // Gauss–Jordan; without pivoting, since the matrix is positive definite.
    for pivot in 0..n {
        let pivot_row = system[pivot].clone();
        for (_, row) in system.iter_mut().enumerate().filter(|(i, _)| *i != pivot) {
            let factor = row[pivot] / pivot_row[pivot];
            row.iter_mut().zip(&pivot_row).skip(pivot).for_each(|(x, p)| *x -= factor * p);
        }
    }
    let score = |row: &Vec<f64>, class: usize| -> f64 {
        from.iter().enumerate().map(|(i, x)| system[i][n + class] / system[i][i] * kernel(x, row)).sum()
    };
    to.iter().map(|row| std::array::from_fn(|class| score(row, class))).collect()
}

/// Area under the ROC curve: share of (positive, negative) pairs in the right order.
fn auc(scores: &[f64], labels: &[bool]) -> f64 {
    let of = |wanted: bool| scores.iter().zip(labels).filter(move |(_, label)| **label == wanted).map(|(s, _)| *s);
    let pairs = of(true).count() * of(false).count();
    let right: usize = of(true).map(|positive| of(false).filter(|&negative| positive > negative).count()).sum();
    right as f64 / pairs as f64
}
