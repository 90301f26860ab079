//! Segments on their way to training: a thread prepares the next one, reading and decoding included, while this one is
//! learned from.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use crate::error::{Error, Result};
use crate::measure::allocator;
use crate::tasks::{Segment, Source};

/// Gives the segments of a source from one index on, in order.
pub struct Feed<'s> {
    next: u64,
    maker: Maker<'s>,
}

enum Maker<'s> {
    /// Made when asked for: cheaper than handing them over.
    Source(&'s dyn Source),
    /// Made by a thread.
    Thread(Receiver<Result<Segment>>),
}

impl<'s> Feed<'s> {
    /// Segments `first` to `end − 1`. Where the source has work with them, a thread of `scope` is one segment ahead; it ends when
    /// the feed is dropped.
    pub fn new<'scope>(scope: &'scope Scope<'scope, 's>, source: &'s dyn Source, first: u64, end: u64) -> Self {
        if !source.is_work() {
            return Self { next: first, maker: Maker::Source(source) };
        }
        // nothing is stored between: one segment waits in the thread's hand
        let (ready, segments) = sync_channel(0);
        scope.spawn(move || {
            allocator::ahead_of_steps();
            for index in first..end {
                let segment = source.segment(index).map_err(Error::from);
                let failed = segment.is_err();
                if ready.send(segment).is_err() || failed {
                    return;
                }
            }
        });
        Self { next: first, maker: Maker::Thread(segments) }
    }

    /// The next segment.
    ///
    /// # Errors
    /// If its data cannot be read.
    pub fn segment(&mut self) -> Result<Segment> {
        let index = self.next;
        self.next += 1;
        match &self.maker {
            Maker::Source(source) => Ok(source.segment(index)?),
            Maker::Thread(segments) => segments.recv().unwrap_or_else(|_| {
                Err(Error::Report(format!("segment {index}: the thread that prepares the data ended before it")))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use data::error::{At, DataError, DataResult};

    /// Segments that carry their index in `seen`; the sixth cannot be read.
    struct Numbered {
        work: bool,
    }

    impl Source for Numbered {
        fn segments(&self) -> u64 {
            4
        }
        fn seen_per_epoch(&self) -> u64 {
            4
        }
        fn segment(&self, index: u64) -> DataResult<Segment> {
            if index == 6 {
                return Err(DataError::corrupt(std::path::Path::new("x"), At::Byte(7), "a segment", "none"));
            }
            let t =
                candle_core::Tensor::zeros(1, candle_core::DType::F32, &candle_core::Device::Cpu).expect("one number");
            assert_eq!(allocator::is_ahead(), self.work, "what a thread of its own prepares is no step's");
            let targets = learner::Targets::Classes { class: t.clone(), weight: t.clone() };
            Ok(Segment { starts: vec![true], input: t, targets, seen: index, items: Vec::new(), offset: 0 })
        }
        fn is_work(&self) -> bool {
            self.work
        }
    }

    #[test]
    fn segments_come_in_order_and_an_error_in_its_place() {
        for work in [false, true] {
            let source = Numbered { work };
            std::thread::scope(|scope| {
                let mut feed = Feed::new(scope, &source, 3, 9);
                let seen: Vec<u64> = (3..6).map(|_| feed.segment().expect("readable").seen).collect();
                assert_eq!(seen, [3, 4, 5]);
                assert!(feed.segment().expect_err("unreadable").to_string().contains("byte 7"));
            });
            // one that is no longer wanted ends its thread, or this would never return
            std::thread::scope(|scope| drop(Feed::new(scope, &source, 0, 5)));
        }
    }
}
