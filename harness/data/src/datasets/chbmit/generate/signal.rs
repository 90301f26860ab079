//! Potentials at the electrodes of the 10–20 system, and the differences that are recorded.

use std::f64::consts::TAU;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::RATE_HZ;
use crate::datasets::chbmit::Seizure;

/// Electrodes with their places seen from above: right and front are positive.
const ELECTRODES: [(&str, f64, f64); 21] = [
    ("FP1", -0.3, 0.9),
    ("FP2", 0.3, 0.9),
    ("F7", -0.8, 0.6),
    ("F3", -0.4, 0.5),
    ("FZ", 0.0, 0.5),
    ("F4", 0.4, 0.5),
    ("F8", 0.8, 0.6),
    ("FT9", -1.0, 0.3),
    ("FT10", 1.0, 0.3),
    ("T7", -0.95, 0.0),
    ("C3", -0.5, 0.0),
    ("CZ", 0.0, 0.0),
    ("C4", 0.5, 0.0),
    ("T8", 0.95, 0.0),
    ("P7", -0.8, -0.6),
    ("P3", -0.4, -0.5),
    ("PZ", 0.0, -0.5),
    ("P4", 0.4, -0.5),
    ("P8", 0.8, -0.6),
    ("O1", -0.3, -0.9),
    ("O2", 0.3, -0.9),
];
const N: usize = ELECTRODES.len();
/// Independent sources of background activity.
const SOURCES: usize = 8;
/// Time constants in seconds whose sum falls off like 1/f between about 0.2 and 20 Hz.
const TIMES_S: [f64; 3] = [0.8, 0.12, 0.02];
/// Digital steps per microvolt, and the value of zero: 4095 steps for 1600 µV from −2048 on.
const STEPS_PER_UV: f64 = 4095.0 / 1600.0;

type Potentials = [f64; N];

/// What stays the same from recording to recording.
pub(super) struct Brain {
    /// Weight of each source at each electrode.
    sources: [Potentials; SOURCES],
    background_uv: f64,
    alpha_hz: f64,
    alpha_uv: f64,
    /// Where seizures begin.
    focus: (f64, f64),
    seizure_uv: f64,
    /// Spikes and waves per second at onset and at the end.
    seizure_hz: (f64, f64),
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    rng.sample(StandardNormal)
}

/// What an electrode sees of a source: a bump of this width.
fn reach((x, y): (f64, f64), width: f64) -> Potentials {
    ELECTRODES.map(|(_, ex, ey)| (-((ex - x).powi(2) + (ey - y).powi(2)) / (2.0 * width * width)).exp())
}

impl Brain {
    pub(super) fn of_patient(rng: &mut ChaCha8Rng) -> Self {
        let mut place = |spread: f64| (rng.random_range(-spread..spread), rng.random_range(-spread..spread));
        let sources = std::array::from_fn(|_| reach(place(1.0), 0.45));
        // seizures with spikes and waves at 3 Hz are wide and strongest in front
        let (x, y) = place(0.4);
        let focus = (x, y + 0.3);
        let begin_hz = rng.random_range(3.2..4.2);
        Self {
            sources,
            focus,
            background_uv: rng.random_range(14.0..26.0),
            alpha_hz: rng.random_range(8.0..11.0),
            alpha_uv: rng.random_range(8.0..25.0),
            seizure_uv: rng.random_range(70.0..150.0),
            seizure_hz: (begin_hz, begin_hz - rng.random_range(0.8..1.4)),
        }
    }

    /// Digital samples of bipolar channels such as `FP1-F7`.
    pub(super) fn record(
        &self,
        channels: &[&str],
        samples: usize,
        seizures: &[Seizure],
        rng: &mut ChaCha8Rng,
    ) -> Vec<Vec<i16>> {
        let mut potentials = self.background(samples, rng);
        for artefact in 0..samples.div_ceil(ARTEFACT_EVERY_S * RATE_HZ) {
            let kind = ARTEFACTS[artefact % ARTEFACTS.len()];
            kind.add(&mut potentials, rng);
        }
        for seizure in seizures {
            self.seize(&mut potentials, seizure, rng);
        }
        let electrode = |name: &str| ELECTRODES.iter().position(|(known, ..)| *known == name);
        let pairs = channels.iter().filter_map(|channel| {
            let (plus, minus) = channel.split_once('-')?;
            Some((electrode(plus)?, electrode(minus)?))
        });
        let digital = |uv: f64| ((uv + 800.0) * STEPS_PER_UV - 2048.0).round() as i16; // the conversion saturates
        pairs.map(|(plus, minus)| potentials.iter().map(|p| digital(p[plus] - p[minus])).collect()).collect()
    }

    fn background(&self, samples: usize, rng: &mut ChaCha8Rng) -> Vec<Potentials> {
        let keep = TIMES_S.map(|time| (-1.0 / (time * RATE_HZ as f64)).exp());
        let drive = keep.map(|keep| (1.0 - keep * keep).sqrt());
        let mut states = [[0.0; TIMES_S.len()]; SOURCES];
        let mut own: Potentials = [0.0; N];
        let alpha_at = reach((0.0, -1.0), 0.5);
        let (mut alpha_phase, mut alpha_level) = (0.0, 1.0);
        let mut all = Vec::with_capacity(samples);
        for t in 0..samples {
            let mut at: Potentials = [0.0; N];
            for (weights, state) in self.sources.iter().zip(&mut states) {
                for ((x, keep), drive) in state.iter_mut().zip(keep).zip(drive) {
                    *x = keep * *x + drive * normal(rng);
                }
                let source = self.background_uv * state.iter().sum::<f64>();
                for (v, weight) in at.iter_mut().zip(weights) {
                    *v += weight * source;
                }
            }
            // alpha waxes and wanes over seconds, and its frequency drifts a little
            alpha_level += (1.0 - alpha_level) / (1.5 * RATE_HZ as f64) + 0.045 * normal(rng);
            alpha_phase += TAU * (self.alpha_hz + 0.5 * normal(rng)) / RATE_HZ as f64;
            let alpha = self.alpha_uv * alpha_level.clamp(0.0, 2.0) * alpha_phase.sin();
            let mains = 1.5 * (TAU * 60.0 * t as f64 / RATE_HZ as f64).sin();
            for ((v, own), weight) in at.iter_mut().zip(&mut own).zip(alpha_at) {
                *own = 0.9 * *own + 1.5 * normal(rng);
                *v += *own + weight * alpha + mains;
            }
            all.push(at);
        }
        all
    }

    /// Spike-and-wave that grows, spreads from the focus and slows down.
    fn seize(&self, potentials: &mut [Potentials], seizure: &Seizure, rng: &mut ChaCha8Rng) {
        let rate = RATE_HZ as f64;
        let from = (seizure.start_s * rate) as usize;
        let to = ((seizure.end_s * rate) as usize).min(potentials.len());
        let seconds = seizure.end_s - seizure.start_s;
        let strength = self.seizure_uv * rng.random_range(0.75..1.25);
        let (begin_hz, end_hz) = self.seizure_hz;
        let mut phase = 0.0;
        let mut spread = reach(self.focus, ONSET_WIDTH);
        for (i, at) in potentials.iter_mut().enumerate().take(to).skip(from) {
            let t = (i - from) as f64 / rate;
            let share = t / seconds;
            if (i - from).is_multiple_of(RATE_HZ) {
                spread = reach(self.focus, ONSET_WIDTH + 0.4 * share);
            }
            phase += (begin_hz + (end_hz - begin_hz) * share + 0.6 * normal(rng)) / rate;
            let level = (0.25 + t / 3.0).min(1.0) * ((seconds - t) / 2.0).min(1.0);
            let wave = strength * level * spike_and_wave(phase.fract());
            for (v, weight) in at.iter_mut().zip(spread) {
                *v += weight * wave;
            }
        }
    }
}

/// Reach of a seizure at its onset; the distance between neighbouring electrodes is about 0.5.
const ONSET_WIDTH: f64 = 0.5;

/// One cycle: a spike of about 60 ms at 3 Hz, then a slow wave.
fn spike_and_wave(phase: f64) -> f64 {
    let spike = 1.2 * (-((phase - 0.12) / 0.045).powi(2)).exp();
    let wave = if phase > 0.25 { -0.7 * (TAU * (phase - 0.25) / 1.5).sin() } else { 0.0 };
    spike + wave
}

/// One artefact so often on average.
const ARTEFACT_EVERY_S: usize = 5;

/// What is no brain activity, or looks like a seizure and is none.
#[derive(Clone, Copy)]
enum Artefact {
    /// Eyelids: a slow deflection in front.
    Blink,
    /// Muscle of one temple: fast noise, in bursts as of chewing.
    Muscle,
    /// An electrode loses contact and drifts back.
    Pop,
    /// Slow waves of drowsiness, rhythmic and wide, without spikes and without evolution.
    SlowWaves,
}

/// In turn; blinks are the most common.
const ARTEFACTS: [Artefact; 6] =
    [Artefact::Blink, Artefact::Muscle, Artefact::Blink, Artefact::SlowWaves, Artefact::Blink, Artefact::Pop];

impl Artefact {
    fn add(self, potentials: &mut [Potentials], rng: &mut ChaCha8Rng) {
        let start = rng.random_range(0..potentials.len().max(1));
        let side = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
        let (at, seconds, size) = match self {
            Self::Blink => (reach((0.0, 1.1), 0.35), 0.35, rng.random_range(90.0..220.0)),
            Self::Muscle => (reach((side * 1.0, 0.2), 0.4), rng.random_range(1.0..4.0), rng.random_range(25.0..70.0)),
            Self::Pop => {
                let mut at = [0.0; N];
                if let Some(v) = at.get_mut(rng.random_range(0..N)) {
                    *v = side;
                }
                (at, 2.0, rng.random_range(100.0..400.0))
            }
            Self::SlowWaves => (
                reach((0.0, rng.random_range(-0.5..0.5)), 0.7),
                rng.random_range(3.0..6.0),
                rng.random_range(40.0..90.0),
            ),
        };
        let hz = rng.random_range(1.2..2.4);
        let length = (seconds * RATE_HZ as f64) as usize;
        for (i, v) in potentials.iter_mut().skip(start).take(length).enumerate() {
            let t = i as f64 / RATE_HZ as f64;
            let ends = (TAU / 2.0 * t / seconds).sin();
            let value = size
                * match self {
                    Self::Blink => ends * ends,
                    Self::Muscle => normal(rng) * ends * (0.6 + 0.4 * (TAU * hz * t).sin()),
                    Self::Pop => (-t / 0.4).exp(),
                    Self::SlowWaves => ends * (TAU * hz * t).sin(),
                };
            for (v, weight) in v.iter_mut().zip(at) {
                *v += weight * value;
            }
        }
    }
}
