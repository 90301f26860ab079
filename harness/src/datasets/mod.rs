//! Datasets in their publishers' layouts, and generators that write the same layouts.

pub mod chbmit;
pub mod edf;
pub mod error;
pub mod flac;
pub mod inspect;
pub mod librispeech;
pub mod mini;
pub mod ptbxl;
pub mod vocabulary;
pub mod wfdb;
pub mod wikitext;
