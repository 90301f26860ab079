//! How fast the machine is at this moment: speeds are compared by it.

use std::time::Instant;

use learner::product::{View, par_matmul};

/// Rows and columns of the matrices.
const SIZE: usize = 512;
/// Products that are timed.
const TIMES: usize = 7;

/// Median time of one product of 512 × 512 matrices in f32, with the threads that a cell has.
#[must_use]
pub fn product_s() -> f64 {
    let a: Vec<f32> = (0..SIZE * SIZE).map(|i| (i % 7) as f32 - 3.0).collect();
    let view = View::new(SIZE, SIZE);
    let mut times: Vec<f64> = (0..=TIMES)
        .map(|_| {
            let clock = Instant::now();
            std::hint::black_box(par_matmul((&a, view), (&a, view)));
            clock.elapsed().as_secs_f64()
        })
        .skip(1) // the first one touches the memory
        .collect();
    times.sort_by(f64::total_cmp);
    times[TIMES / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_takes_between_a_tenth_of_a_millisecond_and_a_second() {
        let seconds = product_s();
        assert!((1e-4..1.0).contains(&seconds), "{seconds}");
    }
}
