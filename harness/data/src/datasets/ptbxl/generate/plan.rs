//! Who is recorded, with what, and in which fold: everything the database says, drawn before any signal.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::EcgSpec;
use super::findings::{BY_SUPERCLASS, Finding};
use super::heart::{Heart, normal, spread};
use super::signal::Conditions;

/// Shares of the leading superclass: NORM, MI, STTC, CD, HYP, near those of PTB-XL.
const SHARES: [f64; 5] = [0.40, 0.18, 0.17, 0.16, 0.09];
/// Weights of a second superclass beside the leading one (rows and columns as in [`SHARES`]).
const COMPANIONS: [[f64; 5]; 5] = [
    [0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, 0.0, 0.4, 0.4, 0.2],
    [0.0, 0.3, 0.0, 0.3, 0.4],
    [0.0, 0.4, 0.4, 0.0, 0.2],
    [0.0, 0.2, 0.5, 0.3, 0.0],
];
/// Share of the diseased with a second superclass: a quarter of 60 % is 15 % of all.
const TWO_SHARE: f64 = 0.25;
/// Mean age by leading superclass.
const MEAN_AGE: [f64; 5] = [50.0, 66.0, 63.0, 67.0, 66.0];
const FOLDS: usize = 10;
/// Above this muscle noise and wander the database remarks on it.
const REMARKABLE_NOISE_MV: f64 = 0.035;
const REMARKABLE_WANDER_MV: f64 = 0.09;

/// A patient.
#[derive(Clone, Debug)]
pub(super) struct Patient {
    pub(super) id: u32,
    pub(super) age: u32,
    pub(super) woman: bool,
    pub(super) height_cm: Option<u32>,
    pub(super) weight_kg: Option<u32>,
    /// Index of the leading superclass.
    superclass: usize,
    /// With severity, from 0 to 1.
    pub(super) findings: Vec<(Finding, f64)>,
    pub(super) heart: Heart,
    records: usize,
    /// 1 to 10.
    pub(super) fold: usize,
}

/// A record of the database.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) ecg_id: u32,
    pub(super) patient: Patient,
    pub(super) conditions: Conditions,
    /// Days after the first recording day.
    pub(super) day: u32,
    /// Second of that day.
    pub(super) second: u32,
}

impl Planned {
    pub(super) fn is_noisy(&self) -> bool {
        self.conditions.noise_mv > REMARKABLE_NOISE_MV
    }

    pub(super) fn is_drifting(&self) -> bool {
        self.conditions.wander_mv > REMARKABLE_WANDER_MV
    }
}

/// Draws the whole database. The same specification gives the same plan.
pub(super) fn plan(spec: &EcgSpec) -> Vec<Planned> {
    let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
    let mut patients = draw_patients(spec.records, &mut rng);
    assign_folds(&mut patients);
    let mut sittings: Vec<&Patient> = patients.iter().flat_map(|p| std::iter::repeat_n(p, p.records)).collect();
    sittings.shuffle(&mut rng);
    // The publisher's ids follow the recording date, over about 11 years.
    let span_days = 4200.0 / spec.records.max(1) as f64;
    (1..)
        .zip(sittings)
        .map(|(ecg_id, patient)| Planned {
            ecg_id,
            patient: patient.clone(),
            conditions: draw_conditions(&mut rng),
            day: (span_days * (f64::from(ecg_id - 1) + rng.random_range(0.0..1.0))) as u32,
            second: rng.random_range(8 * 3600..18 * 3600),
        })
        .collect()
}

fn draw_patients(records: usize, rng: &mut ChaCha8Rng) -> Vec<Patient> {
    let mut patients: Vec<Patient> = Vec::new();
    let start = [rng.random_range(0.0..1.0), rng.random_range(0.0..1.0)];
    let mut left = records;
    while left > 0 {
        let [class_point, second_point] = spread_points(patients.len(), start);
        let superclass = weighted(SHARES, class_point);
        let mut findings = vec![draw_finding(superclass, rng)];
        if superclass != 0 && second_point < TWO_SHARE {
            let companions = COMPANIONS.get(superclass).copied().unwrap_or_default();
            findings.push(draw_finding(weighted(companions, rng.random_range(0.0..1.0)), rng));
        }
        let mean_age = MEAN_AGE.get(superclass).copied().unwrap_or_default();
        let sittings = [0.90, 0.08, 0.02]; // one, two or three records
        let records = (1 + weighted(sittings, rng.random_range(0.0..1.0))).min(left);
        let woman = rng.random_bool(0.48);
        let height_cm = (if woman { 163.0 } else { 175.0 } + 7.0 * normal(rng)) as u32;
        let weight_kg = (if woman { 66.0 } else { 79.0 } * spread(rng, 0.15)) as u32;
        let heart = Heart::of_patient(&findings, rng);
        patients.push(Patient {
            // Numbers with gaps, in no order of time, each once: 7919 is prime to 99991.
            id: ((patients.len() as u64 + 1) * 7919 % 99_991) as u32,
            age: (mean_age + 14.0 * normal(rng)).clamp(18.0, 89.0) as u32,
            woman,
            height_cm: rng.random_bool(0.3).then_some(height_cm),
            weight_kg: rng.random_bool(0.8).then_some(weight_kg),
            superclass,
            findings,
            heart,
            records,
            fold: 0,
        });
        left -= records;
    }
    patients
}

/// A finding of a superclass. Severity starts where it begins to show: some records are hard for anyone.
fn draw_finding(superclass: usize, rng: &mut ChaCha8Rng) -> (Finding, f64) {
    let choices = BY_SUPERCLASS.get(superclass).copied().unwrap_or_default();
    let mut point = rng.random_range(0.0..1.0);
    let severity = rng.random_range(0.4..1.0);
    for &(finding, share) in choices {
        point -= share;
        if point < 0.0 {
            return (finding, severity);
        }
    }
    (choices.last().map_or(Finding::Norm, |&(finding, _)| finding), severity)
}

/// Points of the unit square that cover it more evenly than chance (Roberts' R2 sequence), so that even a small dataset
/// has the shares it should.
fn spread_points(index: usize, start: [f64; 2]) -> [f64; 2] {
    const STEPS: [f64; 2] = [0.754_877_666_246_692_7, 0.569_840_290_998_053_2];
    let [a, b] = STEPS.map(|step| step * index as f64);
    [(start[0] + a).fract(), (start[1] + b).fract()]
}

/// The index whose share of the weights, laid end to end, holds `point` of the unit interval.
fn weighted<const N: usize>(weights: [f64; N], point: f64) -> usize {
    let mut left = point * weights.iter().sum::<f64>();
    weights
        .iter()
        .position(|weight| {
            left -= weight;
            left < 0.0
        })
        .unwrap_or(0)
}

/// Spreads the patients of each superclass evenly over the folds; all records of a patient share one.
fn assign_folds(patients: &mut [Patient]) {
    let mut in_fold = [[0_usize; SHARES.len()]; FOLDS];
    // Those with several records first, so that the others can even them out. The sort is stable.
    let mut order: Vec<&mut Patient> = patients.iter_mut().collect();
    order.sort_by_key(|patient| std::cmp::Reverse(patient.records));
    for patient in order {
        let class = patient.superclass;
        let load = |counts: &[usize; SHARES.len()]| (counts.get(class).copied(), counts.iter().sum::<usize>());
        // Ties go to another fold first for each class, so that small datasets leave none empty.
        let best = (0..FOLDS)
            .map(|step| (step + 2 * class) % FOLDS)
            .min_by_key(|&fold| in_fold.get(fold).map(load))
            .unwrap_or(0);
        if let Some(count) = in_fold.get_mut(best).and_then(|counts| counts.get_mut(class)) {
            *count += patient.records;
        }
        patient.fold = best + 1;
    }
}

fn draw_conditions(rng: &mut ChaCha8Rng) -> Conditions {
    Conditions {
        beats_per_minute: (71.0 + 13.0 * normal(rng)).clamp(46.0, 118.0),
        breathing_share: 0.025 * spread(rng, 0.6),
        noise_mv: 0.012 * spread(rng, 0.65),
        wander_mv: 0.035 * spread(rng, 0.6),
    }
}
