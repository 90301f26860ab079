//! A voice: pulses of the vocal folds and noise, through the resonances (formants) of the mouth. A cascade of two-pole
//! resonators (Klatt 1980) whose frequencies glide from sound to sound.

use std::f64::consts::{PI, TAU};

use learner::seeded_rng;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::datasets::librispeech::RATE_HZ;

const HZ: f64 = RATE_HZ as f64;
/// Bandwidths of the three formants.
const BANDWIDTH_HZ: [f64; 3] = [80.0, 110.0, 160.0];
/// Time in which formants and loudness reach a new sound.
const GLIDE_S: f64 = 0.012;
/// Below this pitch a voice is called low.
const LOW_HZ: f64 = 155.0;
/// Loudest sample of an utterance at the gain 1.
const PEAK: f64 = 12_000.0;

/// How a letter sounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sound {
    /// Loudness of the vocal folds.
    voiced: f64,
    /// Loudness of noise around `hiss_hz`.
    hiss: f64,
    hiss_hz: f64,
    formants_hz: [f64; 3],
    seconds: f64,
    /// Share of the time, at the start, that is silent: a stop's closure.
    closure: f64,
}

/// Formants after Peterson & Barney 1952 (men) for vowels; rough values for the rest.
pub(super) fn sound(letter: char) -> Option<Sound> {
    let vowel =
        |formants_hz| Sound { voiced: 1.0, hiss: 0.0, hiss_hz: 3000.0, formants_hz, seconds: 0.1, closure: 0.0 };
    let liquid = |voiced, formants_hz| Sound { voiced, seconds: 0.075, ..vowel(formants_hz) };
    let hiss = |hiss, hiss_hz| Sound { voiced: 0.0, hiss, hiss_hz, seconds: 0.09, ..vowel([500.0, 1500.0, 2500.0]) };
    let stop = |hiss_hz| Sound { seconds: 0.08, closure: 0.55, ..hiss(0.5, hiss_hz) };
    Some(match letter {
        'A' => vowel([730.0, 1090.0, 2440.0]),
        'E' => vowel([530.0, 1840.0, 2480.0]),
        'I' => vowel([270.0, 2290.0, 3010.0]),
        'O' => vowel([570.0, 840.0, 2410.0]),
        'U' => vowel([300.0, 870.0, 2240.0]),
        'M' => liquid(0.35, [250.0, 900.0, 2200.0]),
        'N' => liquid(0.35, [250.0, 1700.0, 2700.0]),
        'L' => liquid(0.55, [360.0, 1300.0, 3000.0]),
        'R' => liquid(0.55, [420.0, 1150.0, 1500.0]),
        'S' => hiss(0.35, 6200.0),
        'F' => hiss(0.12, 3600.0),
        'P' => stop(700.0),
        'K' => stop(1900.0),
        'T' => stop(4300.0),
        _ => return None,
    })
}

/// A reader.
#[derive(Clone, Debug)]
pub(super) struct Voice {
    pitch_hz: f64,
    /// Factor on all formants: the length of the mouth.
    formants: f64,
    /// Factor on all durations.
    pace: f64,
    gain: f64,
    /// Loudness of the room.
    noise: f64,
}

impl Voice {
    /// The voice of a reader by number.
    pub(super) fn of(reader: u32, seed: u64) -> Self {
        let mut rng = seeded_rng(seed, &format!("mini.speech.reader.{reader}"));
        let pitch_hz = rng.random_range(95.0..220.0);
        // high voices come from short mouths
        let formants = 0.95 + 0.15 * (pitch_hz - 95.0) / 125.0 + rng.random_range(-0.03..0.03);
        Self {
            pitch_hz,
            formants,
            pace: rng.random_range(0.9..1.15),
            gain: rng.random_range(0.5..1.0),
            noise: rng.random_range(0.002..0.01),
        }
    }

    pub(super) fn is_low(&self) -> bool {
        self.pitch_hz < LOW_HZ
    }

    /// The samples of an utterance.
    pub(super) fn read(&self, words: &[&str], rng: &mut ChaCha8Rng) -> Vec<i32> {
        let mut mouth = Mouth::new(self);
        mouth.silence(rng.random_range(0.1..0.2), rng);
        for (n, word) in words.iter().enumerate() {
            if n > 0 {
                mouth.silence(rng.random_range(0.05..0.14), rng);
            }
            for sound in word.chars().filter_map(sound) {
                mouth.speak(&sound, rng);
            }
        }
        mouth.silence(rng.random_range(0.1..0.2), rng);
        let loudest = mouth.samples.iter().fold(1e-9f64, |m, s| m.max(s.abs()));
        mouth.samples.iter().map(|s| (s / loudest * PEAK * self.gain).round() as i32).collect()
    }
}

/// A two-pole resonator.
#[derive(Clone, Copy, Default)]
struct Resonator {
    y1: f64,
    y2: f64,
}

impl Resonator {
    fn step(&mut self, x: f64, hz: f64, bandwidth_hz: f64) -> f64 {
        let c = -(-TAU * bandwidth_hz / HZ).exp();
        let b = 2.0 * (-PI * bandwidth_hz / HZ).exp() * (TAU * hz / HZ).cos();
        let y = (1.0 - b - c) * x + b * self.y1 + c * self.y2;
        (self.y2, self.y1) = (self.y1, y);
        y
    }
}

/// A voice in the act of speaking.
struct Mouth<'a> {
    voice: &'a Voice,
    samples: Vec<f64>,
    /// Place within the period of the vocal folds, 0 to 1.
    phase: f64,
    formants: [Resonator; 3],
    hiss: Resonator,
    /// Where formants and loudnesses are on their way.
    now: Sound,
}

impl<'a> Mouth<'a> {
    fn new(voice: &'a Voice) -> Self {
        let rest = Sound {
            voiced: 0.0,
            hiss: 0.0,
            hiss_hz: 3000.0,
            formants_hz: [500.0, 1500.0, 2500.0],
            seconds: 0.0,
            closure: 0.0,
        };
        Self {
            voice,
            samples: Vec::new(),
            phase: 0.0,
            formants: Default::default(),
            hiss: Resonator::default(),
            now: rest,
        }
    }

    fn silence(&mut self, seconds: f64, rng: &mut ChaCha8Rng) {
        let rest = Sound { voiced: 0.0, hiss: 0.0, seconds, closure: 0.0, ..self.now };
        self.run(&rest, seconds, rng);
    }

    fn speak(&mut self, sound: &Sound, rng: &mut ChaCha8Rng) {
        let seconds = sound.seconds * self.voice.pace * rng.random_range(0.85..1.15);
        self.run(sound, seconds, rng);
    }

    fn run(&mut self, target: &Sound, seconds: f64, rng: &mut ChaCha8Rng) {
        let length = (seconds * HZ) as usize;
        let near = 1.0 - (-1.0 / (GLIDE_S * HZ)).exp();
        let pitch_hz = self.voice.pitch_hz * rng.random_range(0.94..1.06);
        for t in 0..length {
            let open = f64::from(u8::from(t as f64 >= target.closure * length as f64));
            let now = &mut self.now;
            let glide = |from: &mut f64, to: f64| *from += near * (to - *from);
            glide(&mut now.voiced, target.voiced * open);
            // a burst is sudden
            now.hiss =
                if target.closure > 0.0 { target.hiss * open } else { now.hiss + near * (target.hiss - now.hiss) };
            now.hiss_hz = target.hiss_hz;
            for (from, to) in now.formants_hz.iter_mut().zip(target.formants_hz) {
                glide(from, to * self.voice.formants);
            }
            self.phase += pitch_hz / HZ;
            let pulse = if self.phase >= 1.0 { 1.0 } else { 0.0 };
            self.phase -= pulse;
            let noise = rng.random_range(-1.0..1.0);
            let mut y = now.voiced * (30.0 * pulse + 0.05 * noise);
            for ((resonator, hz), bandwidth) in self.formants.iter_mut().zip(now.formants_hz).zip(BANDWIDTH_HZ) {
                y = resonator.step(y, hz, bandwidth);
            }
            let hiss = now.hiss * self.hiss.step(noise, now.hiss_hz.min(0.47 * HZ), 900.0);
            let room = self.voice.noise * rng.random_range(-1.0..1.0);
            self.samples.push(y + 3.0 * hiss + room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Power of a signal around a frequency.
    fn power(samples: &[f64], hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (t, s) in samples.iter().enumerate() {
            let angle = TAU * hz * t as f64 / HZ;
            (re, im) = (re + s * angle.cos(), im + s * angle.sin());
        }
        re * re + im * im
    }

    #[test]
    fn vowels_have_their_formants() {
        let voice = Voice { pitch_hz: 100.0, formants: 1.0, pace: 3.0, gain: 1.0, noise: 0.0 };
        for (letter, strong, weak) in [('I', 2300.0, 1200.0), ('O', 800.0, 1800.0), ('A', 1100.0, 1800.0)] {
            let mut rng = seeded_rng(1, "vowel");
            let mut mouth = Mouth::new(&voice);
            mouth.speak(&sound(letter).unwrap(), &mut rng);
            // finer than the spectral lines of 0.3 s, so that no harmonic is missed
            let band = |hz: f64| (-75..=75).map(|k| power(&mouth.samples, hz + 2.0 * f64::from(k))).sum::<f64>();
            assert!(band(strong) > 3.0 * band(weak), "{letter}: {} {}", band(strong), band(weak));
        }
    }

    #[test]
    fn stops_are_silent_before_their_burst() {
        let voice = Voice { pitch_hz: 100.0, formants: 1.0, pace: 1.0, gain: 1.0, noise: 0.0 };
        let mut mouth = Mouth::new(&voice);
        mouth.speak(&sound('T').unwrap(), &mut seeded_rng(1, "stop"));
        let half = mouth.samples.len() / 2;
        let loud = |part: &[f64]| part.iter().map(|s| s * s).sum::<f64>();
        assert!(loud(&mouth.samples[..half]) < 1e-3 * loud(&mouth.samples[half..]));
    }
}
