//! The neuron, number by number: against the twin's over a range of potentials, and against values worked out by hand.

use bim::config::{Bits, Count, Levels, NeuronConfig, Positive, Reset, Share, Surrogate};
use bim::kernels::encode::{self, EncodeAdjoint, EncodeDims, EncodeGrads, EncodeParams, EncodeScratch, EncodeTape};
use bim::kernels::neuron::Neuron;
use candle_core::DType;

use crate::common::{numbers, random};
use crate::twin::Cell;

const LEVELS: [Levels; 6] =
    [Levels::Binary, Levels::Signed, Levels::Integer, Levels::Unsigned, Levels::Quantised, Levels::Analog];

fn neuron(levels: Levels, surrogate: Surrogate) -> NeuronConfig {
    NeuronConfig {
        levels,
        surrogate,
        burst: Count(3),
        bits: Bits(3),
        threshold: Positive(0.4),
        surrogate_slope: Positive(5.0),
        beta: Share(0.75),
        resistance: Positive(2.0),
        ..NeuronConfig::default()
    }
}

#[test]
fn firing_and_its_derivative_are_those_of_the_twin() {
    for levels in LEVELS {
        for surrogate in [Surrogate::Rectangular, Surrogate::FastSigmoid] {
            let c = neuron(levels, surrogate);
            let (fused, cell) = (Neuron::<f64>::new(&c), Cell::new(&c));
            for i in -3000..3000 {
                let v = f64::from(i) * 1e-3 + 3.7e-4; // never on a threshold
                assert_eq!(fused.fire(v).to_bits(), (cell.fire(v) + 0.0).to_bits(), "{c:?} at {v}");
                let (got, want) = (fused.surrogate(v), cell.slope(v));
                assert!((got - want).abs() < 1e-12, "{c:?} at {v}: {got} {want}");
            }
        }
    }
}

/// ϑ = 0.4, so thresholds of several levels are at 0.2, 0.6, 1.0; a burst is 3 at most.
#[test]
fn levels_are_what_the_configuration_says() {
    let potentials = [-9.0, -1.01, -0.99, -0.61, -0.21, -0.19, 0.0, 0.19, 0.21, 0.39, 0.41, 0.61, 0.99, 1.01, 9.0];
    for (levels, want) in [
        (Levels::Binary, [0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 1., 1., 1., 1., 1.]),
        (Levels::Signed, [-1., -1., -1., -1., -1., 0., 0., 0., 1., 1., 1., 1., 1., 1., 1.]),
        (Levels::Integer, [-3., -3., -2., -2., -1., 0., 0., 0., 1., 1., 1., 2., 2., 3., 3.]),
        (Levels::Unsigned, [0., 0., 0., 0., 0., 0., 0., 0., 1., 1., 1., 2., 2., 3., 3.]),
        (Levels::Quantised, [-3., -3., -2., -2., -1., 0., 0., 0., 1., 1., 1., 2., 2., 3., 3.]),
        (Levels::Analog, potentials),
    ] {
        let fused = Neuron::<f64>::new(&neuron(levels, Surrogate::Rectangular));
        for (v, want) in potentials.into_iter().zip(want) {
            assert!((fused.fire(v) - want).abs() < 1e-15, "{levels:?} at {v}: {} for {want}", fused.fire(v));
        }
    }
}

#[test]
fn surrogates_are_what_the_configuration_says() {
    let at = |levels, surrogate, v: f64| Neuron::<f64>::new(&neuron(levels, surrogate)).surrogate(v);
    let close = |got: f64, want: f64| assert!((got - want).abs() < 1e-12, "{got} for {want}");
    // 1/ϑ within half a step of the outermost levels, nothing beyond
    for (levels, inside, outside) in [
        (Levels::Binary, [0.21, 0.4, 0.59], [0.19, 0.61, -0.4]),
        (Levels::Signed, [-0.59, 0.0, 0.59], [-0.61, 0.61, 2.0]),
        (Levels::Integer, [-1.39, 0.0, 1.39], [-1.41, 1.41, 5.0]),
        (Levels::Unsigned, [-0.19, 0.3, 1.39], [-0.21, 1.41, -1.0]),
    ] {
        for (v, want) in inside.map(|v| (v, 2.5)).into_iter().chain(outside.map(|v| (v, 0.0))) {
            close(at(levels, Surrogate::Rectangular, v), want);
        }
    }
    // slope 5 at a distance of 0.1: 1 / 1.5²
    let fast = |levels, v| at(levels, Surrogate::FastSigmoid, v);
    close(fast(Levels::Binary, 0.5), 4.0 / 9.0);
    close(fast(Levels::Binary, 0.4), 1.0);
    close(fast(Levels::Integer, 0.7), 4.0 / 9.0); // from 0.6
    close(fast(Levels::Integer, -1.1), 4.0 / 9.0); // from −1.0, the lowest threshold
    close(fast(Levels::Unsigned, 0.1), 4.0 / 9.0); // from 0.2, the lowest threshold
    close(fast(Levels::Unsigned, -0.8), 1.0 / 36.0); // still from 0.2
    close(fast(Levels::Signed, 1.0), 1.0 / 25.0); // from 0.2
    close(fast(Levels::Analog, 3.0), 1.0);
}

/// `V ← 0.75 V + 0.25 · 2 · I − ρ s` with two spikes at V = 0.85, and what of it the gradient sees.
#[test]
fn a_step_leaks_integrates_and_resets() {
    for (reset, taken) in [(Reset::None, 0.0), (Reset::Subtract, 0.4), (Reset::Leaky, 0.3)] {
        for attached in [false, true] {
            let c = NeuronConfig { reset, attached_reset: attached, ..neuron(Levels::Integer, Surrogate::FastSigmoid) };
            let fused = Neuron::<f64>::new(&c);
            let want = 0.75 * 0.85 + 0.5 * 1.2 - 2.0 * taken;
            assert!((fused.step(0.85, 1.2) - want).abs() < 1e-12, "{c:?}: {}", fused.step(0.85, 1.2));
            // the threshold at 1.0 is nearest: 1 / (1 + 5 · 0.15)²
            let slope = 1.0 / (1.75 * 1.75);
            let carried = if attached { 0.75 - taken * slope } else { 0.75 };
            assert!((fused.carry(0.85) - carried).abs() < 1e-12, "{c:?}: {}", fused.carry(0.85));
        }
    }
    // without spikes there is nothing to take off, whatever the reset
    let analog = NeuronConfig { attached_reset: true, ..neuron(Levels::Analog, Surrogate::Rectangular) };
    let fused = Neuron::<f64>::new(&analog);
    assert!((fused.step(0.8, 1.2) - 1.2).abs() < 1e-12 && (fused.carry(0.8) - 0.75).abs() < 1e-12);
}

/// At the threshold itself a binary neuron is silent, a graded one is at the next level; the surrogate's window includes its
/// ends. ϑ = 0.5, so that nothing is rounded.
#[test]
fn boundaries_belong_where_the_equations_put_them() {
    let of = |levels| {
        Neuron::<f64>::new(&NeuronConfig { threshold: Positive(0.5), ..neuron(levels, Surrogate::Rectangular) })
    };
    let (binary, integer) = (of(Levels::Binary), of(Levels::Integer));
    assert_eq!([0.5, 0.5 + 1e-9].map(|v| binary.fire(v) as i64), [0, 1]);
    assert_eq!([0.25 - 1e-9, 0.25, 1.25, -0.25].map(|v| integer.fire(v) as i64), [0, 1, 3, 0]);
    for (neuron, inside, outside) in
        [(&binary, [0.25, 0.75], [0.25 - 1e-9, 0.75 + 1e-9]), (&integer, [-1.75, 1.75], [-1.75 - 1e-9, 1.75 + 1e-9])]
    {
        assert_eq!(inside.map(|v| neuron.surrogate(v) as i64), [2, 2]);
        assert_eq!(outside.map(|v| neuron.surrogate(v) as i64), [0, 0]);
    }
}

/// Taps see the past whether credit goes there or not: `∂L/∂c_i = Σ_t ∂L/∂ψ_t · s_{t−i}`, with the history in front of the chunk.
#[test]
fn delays_learn_from_the_past_with_or_without_credit_through_time() -> learner::Result<()> {
    const STEPS: usize = 6;
    let dims = EncodeDims { streams: 2, channels: 3, population: 2, conv: 1, silu: false, delays: 4 };
    let (m, wide) = (6, 12);
    let draw = |name: &str, n: usize| numbers(&random(name, &[n], DType::F64));
    let fused = Neuron::<f64>::new(&neuron(Levels::Signed, Surrogate::Rectangular));
    let (gain, taps) = (draw("gain", m)?, draw("taps", 4 * m)?);
    let params = EncodeParams { gain: &gain, current: None, conv: None, delays: Some(&taps), kernel: 0.0, step: None };
    let mut tape = EncodeTape::new(&dims, STEPS, false);
    tape.x = draw("x", STEPS * 6)?;
    let history: Vec<f64> = draw("history", 3 * wide)?.into_iter().map(f64::round).collect();
    tape.s[..3 * wide].copy_from_slice(&history);
    encode::forward(&dims, &fused, &params, STEPS, &mut tape, &mut vec![0.0; STEPS * wide]);
    assert_eq!(tape.spikes(&dims, STEPS), &tape.s[3 * wide..]);
    assert!(tape.spikes(&dims, STEPS).iter().any(|s| *s != 0.0), "silent: the test would be empty");
    let d = draw("d", STEPS * wide)?;
    for (temporal, filtered) in [(false, false), (true, false), (false, true)] {
        let mut grads = EncodeGrads::zero(&dims);
        // what later chunks want through a kernel is of no concern where credit stays within the step
        let (mut adjoint, mut scratch) = (EncodeAdjoint::new(&dims, filtered), EncodeScratch::default());
        adjoint.psi.fill(1.0);
        let (mut spent, mut dx) = (d.clone(), vec![0.0; STEPS * 6]);
        let how = (temporal, 0.0);
        let (adjoint, scratch) = (&mut adjoint, &mut scratch);
        encode::reverse(&dims, &fused, &params, STEPS, &tape, &mut spent, how, adjoint, &mut grads, &mut dx, scratch);
        for (at, got) in grads.delays.iter().enumerate() {
            let (i, j) = (at / m, at % m);
            let rows = (0..STEPS).flat_map(|t| [t * wide + j, t * wide + m + j].map(|d| (d, d + (3 - i) * wide)));
            let want: f64 = rows.map(|(to, from)| d[to] * tape.s[from]).sum();
            assert!((got - want).abs() < 1e-12, "tap {i} of neuron {j}: {got} for {want}");
        }
    }
    Ok(())
}
