//! Records of several segments: fixed layout (all signals in each) and variable layout (a part of those that a layout
//! header names, found by name, with gaps).

use super::files::Files;
use super::format::{Format, SUPPORTED, Storage};
use super::header::{Body, DEFAULT_RATE, Header, SegmentLine, SignalLine};
use super::read::{NONE, piece, read_signals, usize_of, wrong};
use super::{Channel, Piece, Record};
use crate::error::{At, DataError, DataResult};

/// Longest record of several segments, over all its signals (4 GiB decoded): a gap is a number in a header with no
/// file behind it that could be measured.
const MAX_JOINED_SAMPLES: u64 = 1 << 30;
/// A record of several segments: what its channels are, known before any signal file is opened.
pub(super) struct Joint<'a> {
    files: &'a dyn Files,
    frames: usize,
    /// As they will be, still without samples: `pieces` holds the scale and missing-mark of gaps.
    channels: Vec<Channel>,
    /// Each with its header, or none for a gap, and its length.
    segments: Vec<(&'a SegmentLine, Option<Header>)>,
    /// Signals are matched by name rather than by place.
    by_name: bool,
}

impl<'a> Joint<'a> {
    pub(super) fn plan(
        files: &'a dyn Files,
        header: &Header,
        signals: usize,
        lines: &'a [SegmentLine],
    ) -> DataResult<Self> {
        let total = lines.iter().try_fold(0_u64, |sum, line| sum.checked_add(line.frames));
        let frames = header.frames.or(total).unwrap_or(u64::MAX);
        if total != Some(frames) {
            let got = total.map_or("more than 2^64".into(), |total| total.to_string());
            return Err(wrong(
                header,
                header.line,
                format!("segments of {frames} frames in all"),
                format!("{got} frames"),
            ));
        }
        let mut segments = Vec::with_capacity(lines.len());
        for line in lines {
            segments.push((line, read_segment_header(files, header, line)?));
        }
        // A first segment of length 0 is the layout: it names the signals, of which a segment may have a part.
        let by_name = lines.first().is_some_and(|line| line.frames == 0);
        let named = segments.iter().find_map(|(line, segment)| Some((*line, signals_of(segment.as_ref()?)?)));
        let Some((line, named)) = named else {
            return Err(DataError::corrupt(&header.path, At::File, "a segment that is not a gap", "only gaps"));
        };
        if named.len() != signals {
            let expected = format!("{signals} signals, as the record has");
            return Err(wrong(header, line.line, expected, format!("{} in `{}`", named.len(), line.name)));
        }
        let samples_per_frame: u64 = named.iter().map(|signal| u64::from(signal.samples_per_frame)).sum();
        if frames.checked_mul(samples_per_frame).is_none_or(|samples| samples > MAX_JOINED_SAMPLES) {
            let expected = format!("at most {MAX_JOINED_SAMPLES} samples");
            return Err(wrong(
                header,
                header.line,
                expected,
                format!("{frames} frames of {samples_per_frame} samples"),
            ));
        }
        let channels: Vec<Channel> = named.iter().map(empty_channel).collect();
        let mut joint = Self { frames: usize_of(header, frames)?, channels, segments, by_name, files };
        joint.take_scales(header)?;
        Ok(joint)
    }

    /// Finds each channel's first scale and checks that unit and samples per frame stay the same.
    fn take_scales(&mut self, header: &Header) -> DataResult<()> {
        let mut found = vec![false; self.channels.len()];
        for (line, segment) in self.segments.iter().filter(|(line, _)| line.frames > 0) {
            let Some(segment) = segment else { continue };
            let signals = signals_of(segment).unwrap_or_default();
            if !self.by_name && signals.len() != self.channels.len() {
                let expected = format!("{} signals in each segment", self.channels.len());
                return Err(wrong(header, line.line, expected, format!("{} in `{}`", signals.len(), line.name)));
            }
            for (index, signal) in signals.iter().enumerate() {
                let index = self.place_of(index, &signal.name);
                let Some((channel, found)) = index.and_then(|i| Some((self.channels.get_mut(i)?, found.get_mut(i)?)))
                else {
                    return Err(wrong(segment, signal.line, "a signal of the layout", format!("`{}`", signal.name)));
                };
                if channel.samples_per_frame != signal.samples_per_frame as usize {
                    let expected = format!("{} samples per frame, as elsewhere", channel.samples_per_frame);
                    return Err(wrong(segment, signal.line, expected, signal.samples_per_frame.to_string()));
                }
                if !*found {
                    *found = true;
                    let storage = Storage::from_code(signal.format_code)
                        .map_err(|got| wrong(segment, signal.line, SUPPORTED, got))?;
                    channel.units.clone_from(&signal.units);
                    (channel.gain, channel.baseline) = (signal.gain, signal.baseline);
                    channel.pieces = vec![piece(signal, 0, storage.missing())];
                } else if channel.units != signal.units {
                    let expected = format!("unit {}, as in an earlier segment", channel.units);
                    return Err(wrong(segment, signal.line, expected, signal.units.clone()));
                }
            }
        }
        Ok(())
    }

    /// Place in the record of a segment's signal.
    fn place_of(&self, index: usize, name: &str) -> Option<usize> {
        if self.by_name { self.channels.iter().position(|channel| channel.name == name) } else { Some(index) }
    }

    pub(super) fn read(self, header: &Header) -> DataResult<Record> {
        let mut channels: Vec<Channel> =
            self.channels.iter().map(|channel| Channel { pieces: Vec::new(), ..channel.clone() }).collect();
        for (line, segment) in &self.segments {
            let mut parts: Vec<Option<Channel>> = channels.iter().map(|_| None).collect();
            if let Some(segment) = segment.as_ref().filter(|_| line.frames > 0) {
                let record = read_signals(self.files, segment, signals_of(segment).unwrap_or_default())?;
                if record.frames as u64 != line.frames {
                    let expected = format!("{} frames, as `{}` has", record.frames, line.name);
                    return Err(wrong(header, line.line, expected, line.frames.to_string()));
                }
                for (index, part) in record.channels.into_iter().enumerate() {
                    if let Some(slot) = self.place_of(index, &part.name).and_then(|i| parts.get_mut(i)) {
                        *slot = Some(part);
                    }
                }
            }
            for ((channel, template), part) in channels.iter_mut().zip(&self.channels).zip(parts) {
                append(channel, template, part, line.frames as usize);
            }
        }
        Ok(Record {
            name: header.name.clone(),
            frames_per_second: header.rate.unwrap_or(DEFAULT_RATE),
            frames: self.frames,
            channels,
        })
    }
}

/// Adds a segment's samples to a channel, or so many frames of missing ones.
fn append(channel: &mut Channel, template: &Channel, part: Option<Channel>, frames: usize) {
    let start = channel.digital.len();
    let scales = part.as_ref().map_or(&template.pieces, |part| &part.pieces);
    for piece in scales.iter().map(|piece| Piece { start: start + piece.start, ..*piece }) {
        let same = channel.pieces.last().is_some_and(|last| Piece { start: piece.start, ..*last } == piece);
        if !same && frames > 0 {
            channel.pieces.push(piece);
        }
    }
    if let Some(part) = part {
        channel.digital.extend(part.digital);
    } else {
        let missing = template.pieces.first().map_or(Format::F16.missing(), |piece| piece.missing);
        channel.digital.resize(start + frames * channel.samples_per_frame, missing);
    }
}

fn read_segment_header(files: &dyn Files, header: &Header, line: &SegmentLine) -> DataResult<Option<Header>> {
    if line.name == NONE {
        return Ok(None);
    }
    let segment = Header::read(files, &header.path.with_file_name(format!("{}.hea", line.name)))?;
    if signals_of(&segment).is_none() {
        return Err(wrong(header, line.line, "a segment without segments", format!("`{}`", line.name)));
    }
    if let (Some(own), Some(whole)) = (segment.rate, header.rate)
        && (own - whole).abs() > 1e-6 * whole
    {
        let expected = format!("{whole} frames per second, as the record has");
        return Err(DataError::corrupt(&segment.path, At::Line(segment.line), expected, own.to_string()));
    }
    Ok(Some(segment))
}

fn signals_of(header: &Header) -> Option<&[SignalLine]> {
    match &header.body {
        Body::Signals(signals) => Some(signals),
        Body::Segments { .. } => None,
    }
}

/// A channel that no segment has yet described: its samples, if any, are gaps marked as in format 16.
pub(super) fn empty_channel(signal: &SignalLine) -> Channel {
    Channel {
        name: signal.name.clone(),
        units: signal.units.clone(),
        gain: signal.gain,
        baseline: signal.baseline,
        samples_per_frame: signal.samples_per_frame as usize,
        digital: Vec::new(),
        pieces: vec![piece(signal, 0, Format::F16.missing())],
    }
}
