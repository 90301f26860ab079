//! Buffers that are used again: giving large blocks back to the system and asking for them anew costs more than the
//! arithmetic on many machines.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers that a thread keeps; more than one segment of any model here needs at a time.
const KEPT: usize = 64;

/// Frees the buffers that this thread and the threads of the pool keep. They belong to no learner, so that what one of them left
/// would count as memory of the next one in the process.
pub fn release() {
    let clear = || {
        let _ = FREE.try_with(|free| free.try_borrow_mut().map(|mut free| *free = Vec::new()));
    };
    clear();
    rayon::broadcast(|_| clear());
}

/// A buffer that returns to its thread when it is dropped.
pub(crate) struct Scratch(Vec<f32>);

impl Scratch {
    /// A buffer of `len` elements that hold anything: for what is overwritten as a whole.
    pub fn of(len: usize) -> Self {
        let smallest_fit = |free: &mut Vec<Vec<f32>>| {
            let fits = free.iter().enumerate().filter(|(_, b)| b.capacity() >= len);
            // a buffer far too large would be missing where it is needed
            let best = fits.min_by_key(|(_, b)| b.capacity()).filter(|(_, b)| b.capacity() <= 2 * len.max(1024))?.0;
            Some(free.swap_remove(best))
        };
        let mut buffer = FREE.with(|f| smallest_fit(&mut f.borrow_mut())).unwrap_or_else(|| Vec::with_capacity(len));
        buffer.resize(len, 0.0);
        Self(buffer)
    }

    /// A buffer of zeros.
    pub fn zeros(len: usize) -> Self {
        let mut scratch = Self::of(len);
        scratch.fill(0.0);
        scratch
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.0);
        // the thread may be ending; then the buffer is simply freed
        let _ = FREE.try_with(|f| {
            if let Ok(mut free) = f.try_borrow_mut()
                && free.len() < KEPT
            {
                free.push(buffer);
            }
        });
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_after_a_release() {
        drop(Scratch::of(5000));
        assert!(FREE.with(|free| !free.borrow().is_empty()));
        release();
        assert!(FREE.with(|free| free.borrow().is_empty()));
    }

    #[test]
    fn a_buffer_comes_back_with_the_length_that_was_asked_for() {
        let first = Scratch::of(5000);
        let at = first.as_ptr();
        drop(first);
        let again = Scratch::zeros(4000);
        assert_eq!((again.as_ptr(), again.len()), (at, 4000));
        assert!(again.iter().all(|x| x.to_bits() == 0));
        assert_ne!(Scratch::of(4000).as_ptr(), at, "one buffer has one owner");
        drop(again);
        assert_ne!(Scratch::of(10).as_ptr(), at, "a small request leaves large buffers alone");
    }
}
