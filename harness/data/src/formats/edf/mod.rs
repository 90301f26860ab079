//! European Data Format: EDF (Kemp et al., 1992) and EDF+ (Kemp & Olivan, 2003), continuous (EDF+C) and discontinuous
//! (EDF+D). A file is a header and then *data records* of one duration; each record holds so many 16-bit samples of each
//! signal, one signal after the other. Signals may have different rates. EDF+ adds signals labelled `EDF Annotations`
//! whose bytes are text: the time of each record and any number of annotations.
//!
//! Samples are kept as the stored integers ("digital"), also where they lie outside the header's digital range;
//! [`Signal::scale`] turns them into the header's unit.

mod annotation;
mod header;
mod legacy;
#[cfg(test)]
mod quirk_tests;
mod read;
#[cfg(test)]
mod read_tests;
mod write;

pub use annotation::Annotation;
pub use header::{Header, Kind, Scale, Signal};
pub use read::Reader;
pub use write::{FileToWrite, SignalToWrite, write_file};
