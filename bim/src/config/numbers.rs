//! Numbers that are checked while they are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $type:ty, $low:expr, $high:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "f64", into = "f64")]
        #[schemars(inline, extend("minimum" = $low, "maximum" = $high, "x-expected" = $expected))]
        pub struct $name(pub $type);
        impl TryFrom<f64> for $name {
            type Error = String;
            fn try_from(x: f64) -> std::result::Result<Self, String> {
                let whole = <$type>::try_from_f64(x).filter(|v| ($low..=$high).contains(v));
                whole.map(Self).ok_or_else(|| format!(concat!("expected ", $expected, ", got {}"), x))
            }
        }
        impl From<$name> for f64 {
            fn from(x: $name) -> f64 {
                x.0 as f64
            }
        }
    };
}

trait TryFromF64: Sized {
    fn try_from_f64(x: f64) -> Option<Self>;
}
impl TryFromF64 for f64 {
    fn try_from_f64(x: f64) -> Option<Self> {
        x.is_finite().then_some(x)
    }
}
impl TryFromF64 for usize {
    fn try_from_f64(x: f64) -> Option<Self> {
        (x.fract() == 0.0 && (0.0..=1e9).contains(&x)).then_some(x as Self)
    }
}

bounded!(
    /// A share.
    Share, f64, 0.0, 1.0, "a number from 0 to 1"
);
bounded!(
    /// A share that is not the whole, such as the decay of a mean.
    BelowOne, f64, 0.0, 0.999_999, "a number from 0 to 0.999999"
);
bounded!(
    /// A positive number.
    Positive, f64, 1e-12, 1e12, "a number above 0 (from 1e-12 to 1e12)"
);
bounded!(
    /// A number that is not negative.
    NonNegative, f64, 0.0, 1e12, "a number from 0 to 1e12"
);
bounded!(
    /// A step size.
    StepSize, f64, 1e-6, 100.0, "a number from 1e-6 to 100"
);
bounded!(
    /// A count of at least one.
    Count, usize, 1, 65_536, "a whole number from 1 to 65536"
);

/// Furthest spike time difference that [`DiagnoseConfig::time_differences`] may ask for, in steps.
pub const FURTHEST: usize = 128;

bounded!(
    /// A number of steps; 0 switches off what it is about.
    Lag, usize, 0, FURTHEST, "a whole number from 0 to 128"
);

bounded!(
    /// Bits of an activation.
    Bits, usize, 1, 8, "a whole number from 1 to 8"
);

impl Bits {
    /// Lowest and highest code: `2ⁿ − 1` whole numbers around zero, or 0 and 1 for one bit, where no sign fits.
    #[must_use]
    pub fn codes(self) -> (i32, i32) {
        let highest = (1 << (self.0 - 1)) - 1;
        if self.0 == 1 { (0, 1) } else { (-highest, highest) }
    }
}
