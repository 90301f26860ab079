//! A recording: heartbeats in an irregular rhythm, seen by 12 leads through breathing, drift and noise.

use std::f64::consts::TAU;

use rand::Rng;

use super::heart::{Heart, PROJECTION, normal};
use crate::datasets::ptbxl::{LEADS, Rate};

/// Leads that are computed from the dipole; the limb leads III, aVR, aVL, aVF are combinations of I and II.
const INDEPENDENT: usize = PROJECTION.len();
/// Half length of the low-pass filter before the 100 Hz record, in 500 Hz samples: 60 ms, shorter than a beat's parts.
const FILTER_REACH: isize = 15;
/// Corner of that filter: above what an ECG needs, below the 50 Hz that 100 samples per second can hold.
const FILTER_HZ: f64 = 42.0;
/// Digital steps per millivolt, as the publisher's.
pub(super) const GAIN: f64 = 1000.0;

/// What of a recording does not come from the heart's shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    /// Mean heart rate per minute.
    pub(super) beats_per_minute: f64,
    /// Share by which breathing changes the RR interval.
    pub(super) breathing_share: f64,
    /// Standard deviation of the muscle noise of one lead at 500 Hz.
    pub(super) noise_mv: f64,
    /// Height of the baseline's slow movement.
    pub(super) wander_mv: f64,
}

/// The leads in the order of [`LEADS`], one vector each, in digital steps.
pub(super) type Leads = Vec<Vec<i16>>;

/// A recording of 10 s at 500 Hz and the same at 100 Hz.
pub(super) struct Recording {
    pub(super) hz500: Leads,
    pub(super) hz100: Leads,
}

/// Records a heart.
pub(super) fn record(heart: &Heart, conditions: &Conditions, rng: &mut impl Rng) -> Recording {
    let breaths_hz = rng.random_range(0.18..0.32);
    let breath_phase = rng.random_range(0.0..TAU);
    let breath = |time_s: f64| (TAU * breaths_hz * time_s + breath_phase).sin();
    let dipole = dipole_track(heart, conditions, breath, rng);
    let leads: Vec<Vec<f64>> = PROJECTION
        .iter()
        .map(|lead| {
            let mut signal: Vec<f64> =
                dipole.iter().map(|d| d.iter().zip(lead).map(|(a, b)| a * b).sum::<f64>()).collect();
            // Electrocardiographs are AC-coupled: the beats' mean, which differs between diseases, does not pass.
            let mean = signal.iter().sum::<f64>() / signal.len() as f64;
            for sample in &mut signal {
                *sample -= mean;
            }
            add_disturbances(&mut signal, conditions, breath, rng);
            signal
        })
        .collect();
    let decimated: Vec<Vec<f64>> = leads.iter().map(|lead| decimate(lead)).collect();
    Recording { hz500: twelve_leads(&leads), hz100: twelve_leads(&decimated) }
}

/// Times of the R waves, from before the first sample to behind the last, each with the interval that follows it.
/// The interval varies with breathing, with the 0.1 Hz rhythm of blood pressure, and a little without reason.
fn beats(conditions: &Conditions, breath: impl Fn(f64) -> f64, rng: &mut impl Rng) -> Vec<(f64, f64)> {
    let mean_s = 60.0 / conditions.beats_per_minute;
    let pressure_phase = rng.random_range(0.0..TAU);
    let end_s = Rate::Hz500.samples() as f64 / Rate::Hz500.hz() as f64;
    let mut time_s = -mean_s * rng.random_range(1.0..2.0);
    let mut beats = Vec::new();
    while time_s < end_s + mean_s {
        let pressure = (TAU * 0.1 * time_s + pressure_phase).sin();
        let change = conditions.breathing_share * breath(time_s) + 0.015 * pressure + 0.008 * normal(rng);
        let interval_s = mean_s * (1.0 + change).max(0.5);
        beats.push((time_s, interval_s));
        time_s += interval_s;
    }
    beats
}

/// The dipole at every 500 Hz sample, [5000, 3].
fn dipole_track(
    heart: &Heart,
    conditions: &Conditions,
    breath: impl Fn(f64) -> f64,
    rng: &mut impl Rng,
) -> Vec<[f64; 3]> {
    let hz = Rate::Hz500.hz() as f64;
    let mut track = vec![[0.0; 3]; Rate::Hz500.samples()];
    let mut previous_s = 60.0 / conditions.beats_per_minute;
    for (beat_s, interval_s) in beats(conditions, &breath, rng) {
        // Breathing tilts the heart and changes its distance to the electrodes.
        let tilt = 0.05 * breath(beat_s);
        let (sin, cos) = tilt.sin_cos();
        let height = 1.0 + 0.03 * breath(beat_s) + 0.02 * normal(rng);
        for (event, follows_rate) in heart.events() {
            // QT grows with the root of the interval (Bazett); conduction hardly does.
            let pace = if follows_rate { interval_s.sqrt() } else { previous_s.powf(0.2) };
            let (centre, width) = ((beat_s + event.time_s * pace) * hz, event.width_s * pace * hz);
            let [x, y, z] = event.dipole.map(|axis| axis * height);
            let dipole = [x * cos - y * sin, x * sin + y * cos, z];
            let reach = 5.0 * width; // beyond, below 4e-6 of the height
            let (from, to) = ((centre - reach).max(0.0) as usize, (centre + reach).max(0.0) as usize);
            for (sample, at) in track.iter_mut().enumerate().take(to + 1).skip(from) {
                let weight = (-0.5 * ((sample as f64 - centre) / width).powi(2)).exp();
                at.iter_mut().zip(dipole).for_each(|(sum, axis)| *sum += weight * axis);
            }
        }
        previous_s = interval_s;
    }
    track
}

/// Breathing, drift, mains hum and muscle noise of one lead.
fn add_disturbances(signal: &mut [f64], conditions: &Conditions, breath: impl Fn(f64) -> f64, rng: &mut impl Rng) {
    let breathing_mv = conditions.wander_mv * normal(rng);
    let mains_mv = 0.004 * normal(rng);
    let drifts: [(f64, f64, f64); 3] = std::array::from_fn(|_| {
        (0.6 * conditions.wander_mv * normal(rng), rng.random_range(0.05..0.5), rng.random_range(0.0..TAU))
    });
    for (index, sample) in signal.iter_mut().enumerate() {
        let time_s = index as f64 / Rate::Hz500.hz() as f64;
        let drift: f64 = drifts.iter().map(|(mv, hz, phase)| mv * (TAU * hz * time_s + phase).sin()).sum();
        let mains = mains_mv * (TAU * 50.0 * time_s).sin();
        *sample += breathing_mv * breath(time_s) + drift + mains + conditions.noise_mv * normal(rng);
    }
}

/// Every fifth sample of the low-passed signal; beyond its ends the signal counts as constant.
fn decimate(signal: &[f64]) -> Vec<f64> {
    let hz = Rate::Hz500.hz() as f64;
    let taps: Vec<f64> = (-FILTER_REACH..=FILTER_REACH)
        .map(|tap| {
            let x = TAU * FILTER_HZ / hz * tap as f64;
            let sinc = if tap == 0 { 1.0 } else { x.sin() / x };
            let window = 0.5 + 0.5 * (TAU / 2.0 * tap as f64 / (FILTER_REACH + 1) as f64).cos(); // Hann
            sinc * window
        })
        .collect();
    let sum: f64 = taps.iter().sum();
    let last = signal.len().saturating_sub(1) as isize;
    let step = Rate::Hz500.hz() / Rate::Hz100.hz();
    (0..signal.len())
        .step_by(step)
        .map(|centre| {
            let at = |tap: isize| signal.get((centre as isize + tap).clamp(0, last) as usize).copied().unwrap_or(0.0);
            (-FILTER_REACH..).zip(&taps).map(|(tap, weight)| weight * at(tap)).sum::<f64>() / sum
        })
        .collect()
}

/// All leads from I, II, V1 to V6: Einthoven's and Goldberger's equations hold before rounding.
fn twelve_leads(independent: &[Vec<f64>]) -> Leads {
    let samples = independent.first().map_or(0, Vec::len);
    let mut leads: Leads = LEADS.iter().map(|_| Vec::with_capacity(samples)).collect();
    for index in 0..samples {
        let mut at = [0.0; INDEPENDENT];
        at.iter_mut().zip(independent).for_each(|(to, lead)| *to = lead.get(index).copied().unwrap_or(0.0));
        let [i, ii, v1, v2, v3, v4, v5, v6] = at;
        let all = [i, ii, ii - i, -(i + ii) / 2.0, i - ii / 2.0, ii - i / 2.0, v1, v2, v3, v4, v5, v6];
        for (lead, value_mv) in leads.iter_mut().zip(all) {
            // The conversion saturates; the lowest value is left free, it means "missing".
            lead.push(((value_mv * GAIN).round() as i16).max(-i16::MAX));
        }
    }
    leads
}
