//! Buffers that are used again: giving large blocks back to the system and asking for them anew costs more than the
//! arithmetic on many machines.

use std::cell::RefCell;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

thread_local! {
    /// Small ones, of which a task may need many.
    static OWN: RefCell<Free> = const { RefCell::new(Free(Vec::new())) };
}
/// Large ones, which one thread fills and another may drop.
static SHARED: Mutex<Free> = Mutex::new(Free(Vec::new()));

/// Elements from which on a buffer is shared.
const LARGE: usize = 1 << 15;
/// Buffers that are kept in one place; more than one segment of any model here needs at a time.
const KEPT: usize = 128;

/// Buffers that nobody uses.
#[derive(Default)]
struct Free(Vec<Vec<f32>>);

impl Free {
    /// The smallest that fits. A buffer far too large would be missing where it is needed.
    fn take(&mut self, len: usize) -> Option<Vec<f32>> {
        let fits = self.0.iter().enumerate().filter(|(_, b)| b.capacity() >= len);
        let best = fits.min_by_key(|(_, b)| b.capacity()).filter(|(_, b)| b.capacity() <= 2 * len.max(1024))?.0;
        Some(self.0.swap_remove(best))
    }

    fn put(&mut self, buffer: Vec<f32>) {
        if self.0.len() < KEPT {
            self.0.push(buffer);
        }
    }
}

/// Calls `f` with the place of buffers with room for so many elements; not at all if that is a thread's that is ending.
fn with_free<R>(capacity: usize, f: impl FnOnce(&mut Free) -> R) -> Option<R> {
    if capacity >= LARGE {
        Some(f(&mut SHARED.lock().unwrap_or_else(PoisonError::into_inner)))
    } else {
        OWN.try_with(|own| f(&mut own.borrow_mut())).ok()
    }
}

/// Frees the buffers that are kept for later. They belong to no learner, so that what one of them left would count as memory of
/// the next one in the process.
pub fn release() {
    let clear = || with_free(0, mem::take);
    clear();
    rayon::broadcast(|_| clear());
    with_free(LARGE, mem::take);
}

/// A buffer that is kept for later when it is dropped.
pub(crate) struct Scratch(Vec<f32>);

impl Scratch {
    /// A buffer of `len` elements that hold anything: for what is overwritten as a whole.
    pub fn of(len: usize) -> Self {
        let kept = with_free(len, |free| free.take(len)).flatten();
        let mut buffer = kept.unwrap_or_else(|| Vec::with_capacity(len));
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
        let buffer = mem::take(&mut self.0);
        with_free(buffer.capacity(), |free| free.put(buffer));
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

    /// One test, because tests run beside each other and large buffers are everyone's.
    #[test]
    fn buffers_come_back_until_they_are_released() {
        // the second of a size that no other test asks for
        for (len, less) in [(5003, 4003), (100 * LARGE, 90 * LARGE)] {
            let first = Scratch::of(len);
            let at = first.as_ptr();
            drop(first);
            let again = Scratch::zeros(less);
            assert_eq!((again.as_ptr(), again.len()), (at, less));
            assert!(again.iter().all(|x| x.to_bits() == 0));
            assert_ne!(Scratch::of(less).as_ptr(), at, "one buffer has one owner");
            drop(again);
            assert_ne!(Scratch::of(10).as_ptr(), at, "a small request leaves large buffers alone");
        }
        let large = Scratch::of(100 * LARGE);
        let at = large.as_ptr() as usize;
        std::thread::spawn(move || drop(large)).join().unwrap();
        assert_eq!(Scratch::of(100 * LARGE).as_ptr() as usize, at, "another thread dropped it");
        drop(Scratch::of(5003));
        assert!(OWN.with(|own| !own.borrow().0.is_empty()));
        release();
        assert!(OWN.with(|own| own.borrow().0.is_empty()));
    }
}
