//! One heartbeat as a moving dipole: Gaussian events along the cardiac cycle (`ECGSYN`, `McSharry` et al. 2003), each
//! with a direction in the chest as in Sameni et al. 2007, projected onto the leads. What a disease does to the heart
//! is done to the events, so all leads change together as they do in a patient.

use rand::Rng;
use rand_distr::StandardNormal;

use super::findings::Finding;

/// A vector in the chest, in mV: x to the patient's left, y to the feet, z to the back.
pub(super) type Dipole = [f64; 3];

/// Leads I, II, V1 to V6 of a dipole (Dower's transform as given by Edenbrandt and Pahlm 1988); the other four follow
/// from I and II.
pub(super) const PROJECTION: [Dipole; 8] = [
    [0.632, -0.235, 0.059],
    [0.235, 1.066, -0.132],
    [-0.515, 0.157, -0.917],
    [0.044, 0.164, -1.387],
    [0.882, 0.098, -1.277],
    [1.213, 0.127, -0.601],
    [1.125, 0.127, -0.086],
    [0.831, 0.076, 0.230],
];

/// A Gaussian event of the cycle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// Centre after the R wave at 60 beats per minute.
    pub(super) time_s: f64,
    /// Standard deviation at 60 beats per minute.
    pub(super) width_s: f64,
    /// Direction and height.
    pub(super) dipole: Dipole,
}

/// The events of a beat.
#[derive(Clone, Debug)]
pub(super) struct Heart {
    /// Atria.
    pub(super) p: Event,
    /// Septum.
    pub(super) q: Event,
    /// Free walls.
    pub(super) r: Event,
    /// Base.
    pub(super) s: Event,
    /// Late or detoured part of a blocked conduction; height 0 in a healthy heart.
    pub(super) late: Event,
    /// Between S and T.
    pub(super) st: Event,
    /// The slow rise of T.
    pub(super) t_rise: Event,
    /// Its steeper end.
    pub(super) t_fall: Event,
}

impl Heart {
    /// A healthy heart; no two are alike.
    fn healthy(rng: &mut impl Rng) -> Self {
        let event = |time_s, width_s, dipole| Event { time_s, width_s, dipole };
        let mut heart = Self {
            p: event(-0.165, 0.022, [0.07, 0.10, -0.02]),
            q: event(-0.027, 0.008, [-0.10, -0.05, -0.20]),
            r: event(0.0, 0.011, [1.15, 0.74, 0.12]),
            s: event(0.029, 0.011, [-0.15, -0.10, 0.85]),
            late: event(0.055, 0.018, [0.0; 3]),
            st: event(0.130, 0.045, [0.0; 3]),
            t_rise: event(0.255, 0.050, [0.22, 0.15, -0.13]),
            t_fall: event(0.300, 0.032, [0.20, 0.14, -0.12]),
        };
        heart.p.time_s += 0.015 * normal(rng);
        scale(&mut heart.p.dipole, spread(rng, 0.25));
        scale(&mut heart.q.dipole, spread(rng, 0.40));
        scale(&mut heart.s.dipole, spread(rng, 0.25));
        let (t_height, t_time) = (spread(rng, 0.25), spread(rng, 0.05));
        for t in [&mut heart.t_rise, &mut heart.t_fall] {
            scale(&mut t.dipole, t_height);
            t.time_s *= t_time;
        }
        let qrs_width = spread(rng, 0.08);
        for event in [&mut heart.q, &mut heart.r, &mut heart.s] {
            event.width_s *= qrs_width;
            event.time_s *= qrs_width;
        }
        for axis in &mut heart.st.dipole {
            *axis += 0.015 * normal(rng);
        }
        // Early repolarisation: harmless, and looks like a small injury.
        if rng.random_bool(0.12) {
            add(&mut heart.st.dipole, rng.random_range(0.3..1.0), [0.05, 0.04, -0.07]);
        }
        heart
    }

    /// A patient's heart: healthy, then changed by the findings, then placed in a chest of its own size and axis.
    pub(super) fn of_patient(findings: &[(Finding, f64)], rng: &mut impl Rng) -> Self {
        let mut heart = Self::healthy(rng);
        for &(finding, severity) in findings {
            finding.apply(&mut heart, severity, rng);
        }
        let size = spread(rng, 0.20);
        let (frontal, horizontal) = (0.26 * normal(rng), 0.20 * normal(rng));
        for event in heart.events_mut() {
            let [x, y, z] = event.dipole;
            let (sin, cos) = frontal.sin_cos();
            let (x, y) = (x * cos - y * sin, x * sin + y * cos);
            let (sin, cos) = horizontal.sin_cos();
            event.dipole = [x * cos - z * sin, y, x * sin + z * cos].map(|axis| axis * size);
        }
        heart
    }

    /// With whether the event follows the rate as the T wave does (true) or as QRS does (false).
    pub(super) fn events(&self) -> [(Event, bool); 8] {
        [
            (self.p, false),
            (self.q, false),
            (self.r, false),
            (self.s, false),
            (self.late, false),
            (self.st, true),
            (self.t_rise, true),
            (self.t_fall, true),
        ]
    }

    fn events_mut(&mut self) -> [&mut Event; 8] {
        [
            &mut self.p,
            &mut self.q,
            &mut self.r,
            &mut self.s,
            &mut self.late,
            &mut self.st,
            &mut self.t_rise,
            &mut self.t_fall,
        ]
    }

    /// Electrical axis of the main deflection in the frontal plane: degrees, 0 to the left, 90 to the feet.
    pub(super) fn axis_degrees(&self) -> f64 {
        let sum =
            |axis: fn(&Dipole) -> f64| [&self.q, &self.r, &self.s, &self.late].map(|e| axis(&e.dipole)).iter().sum();
        let (x, y): (f64, f64) = (sum(|dipole| dipole[0]), sum(|dipole| dipole[1]));
        y.atan2(x).to_degrees()
    }
}

/// A sample of the standard normal distribution.
pub(super) fn normal(rng: &mut impl Rng) -> f64 {
    rng.sample(StandardNormal)
}

/// A factor around 1 whose logarithm has this standard deviation.
pub(super) fn spread(rng: &mut impl Rng, deviation: f64) -> f64 {
    (deviation * normal(rng)).exp()
}

/// `dipole` times `factor`.
pub(super) fn scale(dipole: &mut Dipole, factor: f64) {
    for axis in dipole {
        *axis *= factor;
    }
}

/// `dipole` plus `factor` times `other`.
pub(super) fn add(dipole: &mut Dipole, factor: f64, other: Dipole) {
    for (axis, other) in dipole.iter_mut().zip(other) {
        *axis += factor * other;
    }
}
