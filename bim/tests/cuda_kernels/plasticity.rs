use bim::config::{Positive, StdpConfig};
use bim::kernels::stdp::{PairState, Window, accumulate};
use learner::product::{View, matmul};
use standins::{Arg, FORWARD, Kernels, close, drawn, prove};

use super::{Found, size, source, spread};

#[test]
fn cuda_kernels_plasticity() {
    let errors = [
        ("fmaf(a_plus, p, at_zero * s)", "fmaf(a_plus, p, s)"),
        ("p = keep_pre * (p + s);", "p = keep_pre * p + s;"),
        ("weighted[size_t(t) * wide + i] -= a_minus * decayed;", ""),
        ("after[i] = -a_minus * later;", "after[i] = later;"),
        ("q = keep_post * (q + spikes", "q = (q + spikes"),
        ("go += g * o;", "go += g;"),
        ("o2 = block_sum(o2, parts);", ""),
        (
            "__fsub_rn(__fmul_rn(keep, direction[i]), __fmul_rn(add, omega[i]))",
            "__fadd_rn(__fmul_rn(keep, direction[i]), __fmul_rn(add, omega[i]))",
        ),
        ("omega[i] = 0.0f;", ""),
    ];
    prove(&source("plasticity.cu"), &errors, |kernels| {
        for (steps, streams, j, d) in [(1, 1, 5, 4), (31, 2, 48, 7), (32, 3, 33, 33), (33, 1, 192, 16)] {
            pairs_against_twin(kernels, steps, streams, j, d)?;
        }
        for count in [1, 31, 48 * 33] {
            mixing_by_definition(kernels, count)?;
        }
        Ok(())
    });
}

fn pairs_against_twin(kernels: &Kernels, steps: usize, streams: usize, j: usize, d: usize) -> Found {
    let config = StdpConfig { at_zero: 0.3, tau_minus: Positive(8.0), ..StdpConfig::default() };
    let window = Window::<f32>::new(&config);
    let spikes = |seed, n| drawn(seed, n).iter().map(|s| (1.4 * s).round()).collect::<Vec<f32>>();
    let (s_pre, s_post) = (spikes(1, steps * streams * j), spikes(2, steps * streams * d));
    let mut state = PairState::new(streams, j, d);
    state.pre.copy_from_slice(&drawn(3, streams * j));
    state.post.copy_from_slice(&drawn(4, streams * d));
    let mut omega = drawn(5, d * j);
    let (mut got, mut pre, mut post) = (omega.clone(), state.pre.clone(), state.post.clone());
    let before = post.clone();
    accumulate(&window, &s_pre, &s_post, &mut state, &mut omega);
    let Window { a_plus, a_minus, keep_pre, keep_post, at_zero } = window;
    let (mut weighted, mut after) = (vec![f32::NAN; s_pre.len()], vec![f32::NAN; streams * j]);
    let (grid, block) = spread(streams * j);
    kernels.launch(
        "stdp_pre",
        grid,
        block,
        &mut [
            size(steps),
            size(streams * j),
            Arg::F32(a_plus),
            Arg::F32(a_minus),
            Arg::F32(keep_pre),
            Arg::F32(keep_post),
            Arg::F32(at_zero),
            Arg::In(&s_pre),
            Arg::Out(&mut pre),
            Arg::Out(&mut weighted),
            Arg::Out(&mut after),
        ],
    );
    // as on the device, the pairs are products
    let rows = steps * streams;
    let by_spikes = (&weighted[..], View::new(rows, j));
    matmul((&mut got, View::new(d, j)), (&s_post, View::new(rows, d).t()), by_spikes, 1.0);
    matmul((&mut got, View::new(d, j)), (&before, View::new(streams, d).t()), (&after, View::new(streams, j)), 1.0);
    let (grid, block) = spread(streams * d);
    let mut args = [size(steps), size(streams * d), Arg::F32(keep_post), Arg::In(&s_post), Arg::Out(&mut post)];
    kernels.launch("stdp_post", grid, block, &mut args);
    let what = format!("{steps} steps, {streams} streams, {j} x {d}");
    close(&format!("presynaptic sums, {what}"), &pre, &state.pre, FORWARD)?;
    close(&format!("postsynaptic sums, {what}"), &post, &state.post, FORWARD)?;
    close(&format!("pairs, {what}"), &got, &omega, FORWARD)
}

/// The mix is written out in `plasticity.rs` as these lines; there it is private to the update.
fn mixing_by_definition(kernels: &Kernels, count: usize) -> Found {
    let (direction, omega, raw) = (drawn(1, count), drawn(2, count), drawn(3, count));
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let want = [product(&direction, &direction), product(&omega, &omega), product(&direction, &omega)];
    let mut sums = [f64::NAN; 3];
    let mut args = [size(count), Arg::In(&direction), Arg::In(&omega), Arg::Wide(&mut sums)];
    kernels.launch("mix_moments", [1, 1, 1], [64, 1, 1], &mut args);
    close("moments", &sums.map(|s| s as f32), &want.map(|s| s as f32), FORWARD)?;
    let (keep, add) = (0.7, 0.4);
    let (grid, block) = spread(count);
    for printed in [false, true] {
        let (mut got, mut left) = (direction.clone(), omega.clone());
        let raw_arg = if printed { Arg::In(&raw) } else { Arg::Null };
        let mut args = [size(count), Arg::F32(keep), Arg::F32(add), raw_arg, Arg::Out(&mut got), Arg::Out(&mut left)];
        kernels.launch("mix", grid, block, &mut args);
        let mixed =
            |i: usize| if printed { -(keep * raw[i] + add * omega[i]) } else { keep * direction[i] - add * omega[i] };
        close(&format!("mix of {count}, printed {printed}"), &got, &(0..count).map(mixed).collect::<Vec<_>>(), 0.0)?;
        close("pairs start again", &left, &vec![0.0; count], 0.0)?;
    }
    Ok(())
}
