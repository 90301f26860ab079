//! The signals: 16-bit samples as stored, half the size of what they mean in millivolts.

use std::path::Path;

use super::{LEADS, Rate};
use crate::error::{At, DataError, DataResult};
use crate::formats::wfdb;

/// Leads of a record.
const N: usize = LEADS.len();

/// The signal of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Ecg {
    /// Samples as stored: [time, lead], flat, with the leads of [`LEADS`].
    digital: Vec<i16>,
    /// Steps per millivolt of each lead, and its digital value of 0 mV.
    scales: [(f64, i32); N],
}

impl Ecg {
    /// Samples as stored: [time, lead], flat.
    pub fn digital(&self) -> &[i16] {
        &self.digital
    }

    /// The signal in millivolts: [time, lead], flat.
    pub fn physical(&self) -> impl Iterator<Item = f32> + '_ {
        self.rows_from(0, self.digital.len() / N).flatten()
    }

    /// All leads in millivolts at most `times` times from `start` on.
    pub fn rows_from(&self, start: usize, times: usize) -> impl Iterator<Item = [f32; N]> + '_ {
        let rows = self.digital.as_chunks::<N>().0.iter().skip(start).take(times);
        rows.map(|row| std::array::from_fn(|lead| physical(i32::from(row[lead]), self.scales[lead])))
    }
}

/// As [`wfdb::Channel::physical`] has it, to the last bit.
fn physical(sample: i32, (gain, baseline): (f64, i32)) -> f32 {
    ((f64::from(sample) - f64::from(baseline)) / gain) as f32
}

/// Reads a record and checks that it is one of PTB-XL at this rate.
pub(super) fn load_record(path: &Path, rate: Rate) -> DataResult<Ecg> {
    let record = wfdb::read_record(path)?;
    let wrong = |expected: String, got: String| Err(DataError::corrupt(path, At::File, expected, got));
    if record.frames != rate.samples() || (record.frames_per_second - rate.hz() as f64).abs() > 1e-6 {
        let got = format!("{} frames at {} per second", record.frames, record.frames_per_second);
        return wrong(format!("{} frames at {} per second", rate.samples(), rate.hz()), got);
    }
    let names: Vec<&str> = record.channels.iter().map(|channel| channel.name.as_str()).collect();
    if names.len() != N || !names.iter().zip(LEADS).all(|(name, lead)| name.eq_ignore_ascii_case(lead)) {
        return wrong(format!("the leads {}", LEADS.join(" ")), names.join(" "));
    }
    if let Some(channel) = record.channels.iter().find(|c| c.units != "mV" || c.samples_per_frame != 1) {
        let got =
            format!("lead {} in {}, {} samples per frame", channel.name, channel.units, channel.samples_per_frame);
        return wrong("every lead in mV, one sample per frame".into(), got);
    }
    let mut ecg = Ecg { digital: vec![0; rate.samples() * N], scales: [(1.0, 0); N] };
    for (lead, (channel, scale)) in record.channels.iter().zip(&mut ecg.scales).enumerate() {
        *scale = (channel.gain, channel.baseline);
        let places = ecg.digital.iter_mut().skip(lead).step_by(N);
        for (time, ((place, &sample), value)) in places.zip(&channel.digital).zip(channel.physical()).enumerate() {
            let wrong_sample = |what: &str| format!("sample {time} of lead {} {what}", channel.name);
            if !value.is_finite() {
                return wrong("no missing samples".into(), wrong_sample("is missing"));
            }
            // a record of several segments may change its scale on the way
            if value.to_bits() != physical(sample, *scale).to_bits() {
                return wrong("one scale for each lead".into(), wrong_sample("has another"));
            }
            let Ok(sample) = i16::try_from(sample) else {
                return wrong("samples of 16 bits".into(), wrong_sample(&format!("is {sample}")));
            };
            *place = sample;
        }
    }
    Ok(ecg)
}
