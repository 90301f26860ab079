//! A counting allocator over one that keeps its memory: giving large blocks back to the system and asking for them again
//! costs page faults that can dominate a small training step.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};

use mimalloc::MiMalloc;

/// Of the process: what [`Counting::new`] counts to.
static PROCESS: Counts = Counts::new();

thread_local! {
    // const and without a destructor: reading it never allocates, and works while a thread ends
    static EXCLUDED: Cell<bool> = const { Cell::new(false) };
    static AHEAD: Cell<bool> = const { Cell::new(false) };
}

/// Bytes that an allocator was asked for.
#[derive(Debug)]
struct Counts {
    live: AtomicIsize,
    peak: AtomicIsize,
    /// `peak` of this step before [`begin_learning`].
    forward: AtomicIsize,
    /// `live` when the cell began: not its own.
    before: AtomicIsize,
    /// Blocks asked for so far, but for those of threads that work [`ahead_of_steps`].
    blocks: AtomicU64,
    /// `blocks` when this step began.
    blocks_before: AtomicU64,
}

impl Counts {
    const fn new() -> Self {
        Self {
            live: AtomicIsize::new(0),
            peak: AtomicIsize::new(0),
            forward: AtomicIsize::new(0),
            before: AtomicIsize::new(0),
            blocks: AtomicU64::new(0),
            blocks_before: AtomicU64::new(0),
        }
    }

    fn grow(&self, bytes: usize) {
        if EXCLUDED.get() {
            return;
        }
        let live = self.live.fetch_add(bytes as isize, Ordering::Relaxed) + bytes as isize;
        // most allocations are below the peak: a load is cheaper than an unconditional read-modify-write
        if live > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(live, Ordering::Relaxed);
        }
    }

    /// One more block, or one that is asked to change its size.
    fn block(&self) {
        if !EXCLUDED.get() && !AHEAD.get() {
            self.blocks.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Blocks of this step.
    fn blocks_of_step(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed) - self.blocks_before.load(Ordering::Relaxed)
    }

    fn shrink(&self, bytes: usize) {
        if EXCLUDED.get() {
            return;
        }
        self.live.fetch_sub(bytes as isize, Ordering::Relaxed);
    }

    /// No peak of its own: most of the time they are given back next.
    fn take_over(&self, bytes: usize) {
        self.live.fetch_add(bytes as isize, Ordering::Relaxed);
    }

    /// Without what was there before the cell.
    fn own(&self, bytes: &AtomicIsize) -> u64 {
        (bytes.load(Ordering::Relaxed) - self.before.load(Ordering::Relaxed)).max(0) as u64
    }

    fn peaks(&self) -> Peaks {
        Peaks { forward: self.own(&self.forward), learning: self.own(&self.peak) }
    }

    fn begin_cell(&self) {
        self.before.store(self.live.load(Ordering::Relaxed), Ordering::Relaxed);
        self.begin_step();
    }

    fn begin_step(&self) {
        self.blocks_before.store(self.blocks.load(Ordering::Relaxed), Ordering::Relaxed);
        self.forward.store(self.before.load(Ordering::Relaxed), Ordering::Relaxed);
        self.peak.store(self.live.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn begin_learning(&self) {
        self.forward.store(self.peak.load(Ordering::Relaxed), Ordering::Relaxed);
        self.peak.store(self.live.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// mimalloc, with live and peak bytes and blocks counted.
pub struct Counting {
    heap: MiMalloc,
    counts: &'static Counts,
}

impl Counting {
    /// The process's allocator: there is one of it.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "a static needs a constant")]
    pub const fn new() -> Self {
        Self { heap: MiMalloc, counts: &PROCESS }
    }
}

// SAFETY: every call is passed on unchanged; only counters are touched besides, and they do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the inner allocator's.
        let p = unsafe { self.heap.alloc(layout) };
        if !p.is_null() {
            self.counts.block();
            self.counts.grow(layout.size());
        }
        p
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let p = unsafe { self.heap.alloc_zeroed(layout) };
        if !p.is_null() {
            self.counts.block();
            self.counts.grow(layout.size());
        }
        p
    }

    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.heap.dealloc(p, layout) };
        self.counts.shrink(layout.size());
    }

    unsafe fn realloc(&self, p: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let q = unsafe { self.heap.realloc(p, layout, new_size) };
        if !q.is_null() {
            self.counts.block();
            if new_size >= layout.size() {
                self.counts.grow(new_size - layout.size());
            } else {
                self.counts.shrink(layout.size() - new_size);
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

/// Counts no blocks that this thread asks for: it prepares what later steps need, and how far it is when a step begins is chance.
pub fn ahead_of_steps() {
    AHEAD.set(true);
}

/// Whether this thread works [`ahead_of_steps`].
#[must_use]
pub fn is_ahead() -> bool {
    AHEAD.get()
}

/// Runs `f` as work that is done [`ahead_of_steps`] if `ahead`: on a thread that works for another one, which is.
pub fn on_behalf<R>(ahead: bool, f: impl FnOnce() -> R) -> R {
    let before = AHEAD.replace(ahead || AHEAD.get());
    let result = f();
    AHEAD.set(before);
    result
}

/// Blocks asked for since [`begin_step`]. With one thread it is the same whenever the step is made in the same place of a run; with
/// several it depends on which of them did what.
#[must_use]
pub fn allocations() -> u64 {
    PROCESS.blocks_of_step()
}

/// Runs `f` and counts nothing that this thread asks for or gives back meanwhile: what is kept for every cell of a process,
/// and made when the first of them needs it. What remains of it and is given back otherwise must be [`taken_over`] before.
/// `f` must hand no work to other threads, nor wait for them.
pub fn apart<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            EXCLUDED.set(self.0);
        }
    }
    let _restore = Restore(EXCLUDED.replace(true));
    f()
}

/// Counts bytes that were asked for [`apart`] and belong to whoever gives them back from now on.
pub fn taken_over(bytes: usize) {
    if is_counting() {
        PROCESS.take_over(bytes);
    }
}

/// Bytes requested and not yet given back, without those from before [`begin_cell`].
#[must_use]
pub fn live_bytes() -> u64 {
    PROCESS.own(&PROCESS.live)
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
    PROCESS.peaks()
}

/// A cell begins: what the process holds is not its own.
pub fn begin_cell() {
    PROCESS.begin_cell();
}

/// Starts a new step: the peaks are forgotten.
pub fn begin_step() {
    PROCESS.begin_step();
}

/// The step's forward pass is over.
pub fn begin_learning() {
    PROCESS.begin_learning();
}

/// Whether the counting allocator is in charge of this process: false in a library user's program.
#[must_use]
pub fn is_counting() -> bool {
    PROCESS.live.load(Ordering::Relaxed) > 0
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

    fn layout(n: usize) -> Layout {
        Layout::from_size_align(n, 8).expect("a valid layout")
    }

    /// The counters themselves, apart from the process's own allocator: other tests allocate at the same time.
    #[test]
    fn counts_to_the_byte() {
        static COUNTS: Counts = Counts::new();
        let heap = Counting { heap: MiMalloc, counts: &COUNTS };
        let live = || COUNTS.own(&COUNTS.live);
        COUNTS.begin_step();
        // SAFETY: each block is freed with the layout it has.
        unsafe {
            let a = heap.alloc(layout(1000));
            let b = heap.alloc_zeroed(layout(500));
            assert_eq!(live(), 1500);
            let a = heap.realloc(a, layout(1000), 3000);
            assert_eq!(live(), 3500);
            heap.dealloc(b, layout(500));
            let a = heap.realloc(a, layout(3000), 200);
            assert_eq!((live(), COUNTS.peaks().step(), COUNTS.blocks_of_step()), (200, 3500, 4));
            COUNTS.begin_learning();
            let a = heap.realloc(a, layout(200), 900);
            assert_eq!((COUNTS.peaks(), COUNTS.peaks().step()), (Peaks { forward: 3500, learning: 900 }, 3500));
            heap.dealloc(a, layout(900));
        }
        COUNTS.begin_step();
        std::thread::spawn(|| {
            let heap = Counting { heap: MiMalloc, counts: &COUNTS };
            // SAFETY: freed with the layout it has.
            let use_some = || unsafe { heap.dealloc(heap.alloc(layout(700)), layout(700)) };
            on_behalf(true, use_some);
            assert!(!is_ahead());
            ahead_of_steps();
            use_some();
        })
        .join()
        .expect("no panic");
        assert_eq!(
            (COUNTS.peaks().learning, COUNTS.blocks_of_step()),
            (700, 0),
            "its bytes are the cell's, its blocks no step's"
        );
        COUNTS.begin_step();
        std::thread::spawn(|| {
            exclude_this_thread();
            let heap = Counting { heap: MiMalloc, counts: &COUNTS };
            // SAFETY: freed with the layout it has.
            unsafe { heap.dealloc(heap.alloc(layout(700)), layout(700)) };
        })
        .join()
        .expect("no panic");
        assert_eq!(
            (COUNTS.peaks().learning, COUNTS.blocks_of_step()),
            (0, 0),
            "another thread's recording is not counted"
        );
        assert_eq!(live(), 0);
    }

    /// A cell's bytes are the same whatever others hold, and whatever is kept for all.
    #[test]
    fn a_cell_counts_what_is_its_own() {
        static COUNTS: Counts = Counts::new();
        let heap = Counting { heap: MiMalloc, counts: &COUNTS };
        // SAFETY: each block is freed with the layout it has.
        unsafe {
            let others = heap.alloc(layout(1 << 20));
            COUNTS.begin_cell();
            assert_eq!((COUNTS.own(&COUNTS.live), COUNTS.peaks().step()), (0, 0));
            COUNTS.begin_step();
            let own = heap.alloc(layout(1000));
            COUNTS.begin_learning();
            let kept = apart(|| heap.alloc(layout(5000)));
            assert_eq!(COUNTS.peaks(), Peaks { forward: 1000, learning: 1000 });
            // one that is no longer kept, but still in use
            COUNTS.take_over(5000);
            assert_eq!(COUNTS.own(&COUNTS.live), 6000);
            heap.dealloc(kept, layout(5000));
            heap.dealloc(own, layout(1000));
            assert_eq!((COUNTS.own(&COUNTS.live), COUNTS.peaks().step()), (0, 1000));
            // what others give back meanwhile makes nothing negative
            heap.dealloc(others, layout(1 << 20));
            assert_eq!(COUNTS.own(&COUNTS.live), 0);
        }
        assert!(!EXCLUDED.get(), "counted again after what was apart");
    }
}
