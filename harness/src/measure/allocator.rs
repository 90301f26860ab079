//! A counting allocator over one that keeps its memory: giving large blocks back to the system and asking for them again
//! costs page faults that can dominate a small training step.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use mimalloc::MiMalloc;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// [`PEAK`] of this step before [`begin_learning`].
static FORWARD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    // const and without a destructor: reading it never allocates, and works while a thread ends
    static EXCLUDED: Cell<bool> = const { Cell::new(false) };
}

/// mimalloc, with live and peak bytes counted.
pub struct Counting(pub MiMalloc);

fn grow(bytes: usize) {
    if EXCLUDED.get() {
        return;
    }
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    // most allocations are below the peak: a load is cheaper than an unconditional read-modify-write
    if live > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
}

fn shrink(bytes: usize) {
    if EXCLUDED.get() {
        return;
    }
    LIVE.fetch_sub(bytes, Ordering::Relaxed);
}

// SAFETY: every call is passed on unchanged; only counters are touched besides, and they do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the inner allocator's.
        let p = unsafe { self.0.alloc(layout) };
        if !p.is_null() {
            grow(layout.size());
        }
        p
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let p = unsafe { self.0.alloc_zeroed(layout) };
        if !p.is_null() {
            grow(layout.size());
        }
        p
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(p, layout) };
        shrink(layout.size());
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let q = unsafe { self.0.realloc(p, layout, new_size) };
        if !q.is_null() {
            if new_size >= layout.size() {
                grow(new_size - layout.size());
            } else {
                shrink(layout.size() - new_size);
            }
        }
        q
    }
}

/// Counts nothing that this thread asks for or gives back from now on: a thread that records and does not train. It must
/// give back itself what it asks for, and nothing else.
pub fn exclude_this_thread() {
    EXCLUDED.set(true);
}

/// Bytes requested and not yet given back.
#[must_use]
pub fn live_bytes() -> u64 {
    LIVE.load(Ordering::Relaxed) as u64
}

/// Highest values of [`live_bytes`] within a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peaks {
    /// From [`begin_step`] to [`begin_learning`].
    pub forward: u64,
    /// From [`begin_learning`] on.
    pub learning: u64,
}

impl Peaks {
    /// Of the whole step.
    #[must_use]
    pub fn step(self) -> u64 {
        self.forward.max(self.learning)
    }
}

/// Those of this step so far.
#[must_use]
pub fn peaks() -> Peaks {
    Peaks { forward: FORWARD.load(Ordering::Relaxed) as u64, learning: PEAK.load(Ordering::Relaxed) as u64 }
}

/// Starts a new step: the peaks are forgotten.
pub fn begin_step() {
    FORWARD.store(0, Ordering::Relaxed);
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// The step's forward pass is over.
pub fn begin_learning() {
    FORWARD.store(PEAK.load(Ordering::Relaxed), Ordering::Relaxed);
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Whether the counting allocator is in charge of this process: false in a library user's program.
#[must_use]
pub fn is_counting() -> bool {
    live_bytes() > 0
}

/// Tells mimalloc to keep freed pages for good instead of giving them back after a while: a training step asks for the
/// same blocks again and again.
pub fn keep_memory() {
    const NEVER: std::ffi::c_long = -1;
    // `mi_option_purge_delay` of mimalloc v3's `mi_option_e`, which the bindings do not name
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets a number in mimalloc's option table, at start-up, before other threads exist.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, NEVER) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counters themselves, apart from the process's own allocator: other tests allocate at the same time.
    #[test]
    fn counts_to_the_byte() {
        let heap = Counting(MiMalloc);
        let layout = |n| Layout::from_size_align(n, 8).expect("a valid layout");
        // the test program has another global allocator: only this test touches these counters
        begin_step();
        let before = live_bytes();
        // SAFETY: each block is freed with the layout it has.
        unsafe {
            let a = heap.alloc(layout(1000));
            let b = heap.alloc_zeroed(layout(500));
            assert_eq!(live_bytes() - before, 1500);
            let a = heap.realloc(a, layout(1000), 3000);
            assert_eq!(live_bytes() - before, 3500);
            heap.dealloc(b, layout(500));
            let a = heap.realloc(a, layout(3000), 200);
            assert_eq!((live_bytes() - before, peaks().step() - before), (200, 3500));
            begin_learning();
            let a = heap.realloc(a, layout(200), 900);
            let Peaks { forward, learning } = peaks();
            assert_eq!((forward - before, learning - before, peaks().step() - before), (3500, 900, 3500));
            heap.dealloc(a, layout(900));
        }
        std::thread::spawn(move || {
            exclude_this_thread();
            let heap = Counting(MiMalloc);
            // SAFETY: freed with the layout it has.
            unsafe { heap.dealloc(heap.alloc(layout(700)), layout(700)) };
        })
        .join()
        .expect("no panic");
        assert_eq!(peaks().learning - before, 900, "another thread's recording is not counted");
        assert_eq!(live_bytes(), before);
    }
}
