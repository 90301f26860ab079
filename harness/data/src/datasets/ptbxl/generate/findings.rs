//! The diagnostic statements that the generator knows, and what each does to the heart.

use rand::Rng;

use super::heart::{Heart, add, scale};

/// A diagnostic statement of SCP-ECG, as PTB-XL uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    Norm,
    InferiorInfarct,
    AnteroseptalInfarct,
    AnterolateralInfarct,
    StDepression,
    Ischaemia,
    TChange,
    LongQt,
    RightBundle,
    RightBundleIncomplete,
    LeftBundle,
    LeftAnteriorFascicle,
    SlowAtrioventricular,
    LeftHypertrophy,
}

/// The superclasses' findings with their weights, in the order NORM, MI, STTC, CD, HYP.
pub(super) const BY_SUPERCLASS: [&[(Finding, f64)]; 5] = [
    &[(Finding::Norm, 1.0)],
    &[(Finding::InferiorInfarct, 0.45), (Finding::AnteroseptalInfarct, 0.35), (Finding::AnterolateralInfarct, 0.20)],
    &[(Finding::StDepression, 0.30), (Finding::Ischaemia, 0.35), (Finding::TChange, 0.25), (Finding::LongQt, 0.10)],
    &[
        (Finding::RightBundle, 0.24),
        (Finding::RightBundleIncomplete, 0.20),
        (Finding::LeftBundle, 0.22),
        (Finding::LeftAnteriorFascicle, 0.28),
        (Finding::SlowAtrioventricular, 0.06),
    ],
    &[(Finding::LeftHypertrophy, 1.0)],
];

impl Finding {
    /// Code in `scp_codes`.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Norm => "NORM",
            Self::InferiorInfarct => "IMI",
            Self::AnteroseptalInfarct => "ASMI",
            Self::AnterolateralInfarct => "ALMI",
            Self::StDepression => "NST_",
            Self::Ischaemia => "ISC_",
            Self::TChange => "NDT",
            Self::LongQt => "LNGQT",
            Self::RightBundle => "CRBBB",
            Self::RightBundleIncomplete => "IRBBB",
            Self::LeftBundle => "CLBBB",
            Self::LeftAnteriorFascicle => "LAFB",
            Self::SlowAtrioventricular => "1AVB",
            Self::LeftHypertrophy => "LVH",
        }
    }

    /// Name in a report.
    pub(super) fn report(self) -> &'static str {
        match self {
            Self::Norm => "normal ecg",
            Self::InferiorInfarct => "inferior infarction",
            Self::AnteroseptalInfarct => "anteroseptal infarction",
            Self::AnterolateralInfarct => "anterolateral infarction",
            Self::StDepression => "non-specific st depression",
            Self::Ischaemia => "ischaemic st-t changes",
            Self::TChange => "t wave abnormalities",
            Self::LongQt => "long qt interval",
            Self::RightBundle => "right bundle branch block",
            Self::RightBundleIncomplete => "incomplete right bundle branch block",
            Self::LeftBundle => "left bundle branch block",
            Self::LeftAnteriorFascicle => "left anterior fascicular block",
            Self::SlowAtrioventricular => "first degree av block",
            Self::LeftHypertrophy => "left ventricular hypertrophy",
        }
    }

    /// Changes the events of a heart. `severity` runs from 0 (nothing to be seen) to 1.
    pub(super) fn apply(self, heart: &mut Heart, severity: f64, rng: &mut impl Rng) {
        let grown = 0.5 + 0.5 * severity; // for findings that are either there or not
        match self {
            Self::Norm => {}
            Self::InferiorInfarct => infarct(heart, [0.0, 1.0, 0.0], severity, rng),
            Self::AnteroseptalInfarct => infarct(heart, [-0.1, 0.0, -1.0], severity, rng),
            Self::AnterolateralInfarct => infarct(heart, [0.9, 0.0, -0.45], severity, rng),
            Self::StDepression => {
                add(&mut heart.st.dipole, -0.17 * severity, [0.9, 0.6, -0.3]);
                scale_t(heart, 1.0 - 0.4 * severity);
            }
            Self::Ischaemia => {
                add(&mut heart.st.dipole, -0.09 * severity, [0.9, 0.6, -0.3]);
                scale_t(heart, 1.0 - 1.8 * severity);
            }
            Self::TChange => scale_t(heart, 1.0 - 1.6 * severity),
            Self::LongQt => {
                for t in [&mut heart.t_rise, &mut heart.t_fall] {
                    t.time_s *= 1.0 + 0.40 * severity;
                    t.width_s *= 1.0 + 0.25 * severity;
                }
            }
            // A late deflection to the right and front: R' in V1, broad S in I and V6.
            Self::RightBundle => {
                (heart.late.time_s, heart.late.width_s) = (0.062, 0.020);
                add(&mut heart.late.dipole, grown, [-0.50, 0.05, -0.75]);
                add_t(heart, 0.5 * grown, [0.0, 0.0, 0.20]);
            }
            Self::RightBundleIncomplete => {
                (heart.late.time_s, heart.late.width_s) = (0.047, 0.013);
                add(&mut heart.late.dipole, grown, [-0.25, 0.0, -0.50]);
            }
            // The septum is crossed the other way, the left wall comes slowly and in two humps, T turns over.
            Self::LeftBundle => {
                scale(&mut heart.q.dipole, -0.5);
                scale(&mut heart.r.dipole, 0.75);
                add(&mut heart.r.dipole, grown, [0.0, -0.1, 0.45]);
                heart.r.width_s *= 1.0 + 0.7 * grown;
                scale(&mut heart.s.dipole, 0.4);
                (heart.late.time_s, heart.late.width_s) = (0.058, 0.022);
                add(&mut heart.late.dipole, grown, [0.70, 0.20, 0.55]);
                add(&mut heart.st.dipole, -0.10 * grown, [0.8, 0.2, 0.8]);
                scale_t(heart, 1.0 - 1.6 * grown);
            }
            // The upper left wall comes last: axis to the left, S in II, III and aVF.
            Self::LeftAnteriorFascicle => {
                heart.r.dipole[1] *= 1.0 - 0.5 * grown;
                (heart.late.time_s, heart.late.width_s) = (0.030, 0.014);
                add(&mut heart.late.dipole, grown, [0.20, -0.85, 0.10]);
            }
            Self::SlowAtrioventricular => heart.p.time_s -= 0.06 + 0.06 * severity,
            // More muscle to the left and back, and often the strain pattern.
            Self::LeftHypertrophy => {
                scale(&mut heart.r.dipole, 1.28 + 0.50 * severity);
                add(&mut heart.r.dipole, severity, [0.10, 0.0, 0.20]);
                scale(&mut heart.s.dipole, 1.20 + 0.50 * severity);
                heart.r.width_s *= 1.08;
                if rng.random_bool(0.6) {
                    add(&mut heart.st.dipole, -0.09 * severity, [1.0, 0.3, -0.3]);
                    heart.t_rise.dipole[0] -= 0.28 * severity;
                    heart.t_fall.dipole[0] -= 0.28 * severity;
                }
            }
        }
    }
}

/// Dead muscle on one side: the first forces point away from it (Q wave) and the later ones towards it are smaller.
/// While it is fresh, ST points to it; later T points away from it.
fn infarct(heart: &mut Heart, side: [f64; 3], severity: f64, rng: &mut impl Rng) {
    heart.q.time_s = -0.026;
    heart.q.width_s *= 1.0 + 0.6 * severity;
    add(&mut heart.q.dipole, -0.50 * severity, side);
    let towards: f64 = heart.r.dipole.iter().zip(side).map(|(a, b)| a * b).sum();
    add(&mut heart.r.dipole, -0.45 * severity * towards.max(0.3), side);
    if rng.random_bool(0.45) {
        add(&mut heart.st.dipole, 0.20 * severity, side);
    } else {
        add(&mut heart.st.dipole, 0.03 * severity, side);
        add_t(heart, -0.26 * severity, side);
    }
}

fn scale_t(heart: &mut Heart, factor: f64) {
    scale(&mut heart.t_rise.dipole, factor);
    scale(&mut heart.t_fall.dipole, factor);
}

fn add_t(heart: &mut Heart, factor: f64, dipole: [f64; 3]) {
    add(&mut heart.t_rise.dipole, factor, dipole);
    add(&mut heart.t_fall.dipole, factor, dipole);
}
