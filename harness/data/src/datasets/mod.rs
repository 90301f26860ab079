//! Datasets in their publishers' layouts, each with its reader and a generator that writes the same layout.

pub mod chbmit;
mod fill;
pub mod librispeech;
pub mod ptbxl;
pub mod vocabulary;
pub mod wikitext;
