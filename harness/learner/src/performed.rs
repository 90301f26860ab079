//! Multiplications that were carried out, counted where they are, to be held against those that a counter declares.
//!
//! A counter knows what its author knew. Products and loops note here how many multiplications they make, whoever called
//! them; what is noted and not declared is unknown ([`crate::operations::Tally::reconcile`]). Zeros count like any other
//! factor: these are the multiplications of dense loops, not effective operations.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static NOTED: Cell<u64> = const { Cell::new(0) };
}

/// Notes that this thread makes so many multiplications.
pub fn note(multiplications: usize) {
    NOTED.set(NOTED.get().wrapping_add(multiplications as u64));
}

/// Runs `f` and adds what it notes to `to`. It must not hand work to other threads, whose notes would be missing, nor wait
/// for them: the thread may do another's work meanwhile.
pub fn during<R>(to: &AtomicU64, f: impl FnOnce() -> R) -> R {
    let before = NOTED.get();
    let result = f();
    to.fetch_add(NOTED.get().wrapping_sub(before), Ordering::Relaxed);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_belong_to_what_runs_on_this_thread_meanwhile() {
        let (outer, inner) = (AtomicU64::new(1), AtomicU64::new(0));
        note(1000);
        let result = during(&outer, || {
            note(2);
            during(&inner, || note(30));
            std::thread::scope(|scope| scope.spawn(|| note(400)).join().expect("no panic"));
            "result"
        });
        assert_eq!((result, outer.into_inner(), inner.into_inner()), ("result", 33, 30));
    }
}
