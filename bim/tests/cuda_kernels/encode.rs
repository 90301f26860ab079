use bim::config::{Levels, NeuronConfig};
use bim::kernels::encode::{self, EncodeAdjoint, EncodeDims, EncodeGrads, EncodeParams, EncodeScratch, EncodeTape};
use bim::kernels::neuron::Neuron;
use standins::{Arg, FORWARD, GRADIENT, Kernels, close, drawn, prove};

use super::{Found, STEPS, flag, maybe, neurons, scaled, size, source, spread_streams, summed};

#[test]
fn cuda_kernels_encode() {
    let errors = [
        ("x[size_t(t + conv - 1 - i) * wide_x + at_x]", "x[size_t(t + i) * wide_x + at_x]"),
        ("if (current) input = __fadd_rn(input, current[m]);", ""),
        (
            "return clip(floorf(fmaf(v, inverse, offset)), lowest, highest);",
            "return clip(floorf(fmaf(v, inverse, offset)), lowest, 2.0f);",
        ),
        ("__fmul_rn(-reset, fire(v))", "0.0f"),
        ("if (last) out = __fadd_rn(out, __fmul_rn(kernel, before));", ""),
        ("lpsi[at] = kernel * d;", "lpsi[at] = d;"),
        ("if (temporal || i == 0) ds[row]", "ds[row]"),
        ("attached ? beta - reset * surrogate(v) : beta", "beta"),
        (
            "const float fired = ds[size_t(history + t) * wide + at] + penalty * sign;",
            "const float fired = ds[size_t(history + t) * wide + at];",
        ),
        ("const float x = 1.0f + slope * fabsf(v - nearest);", "const float x = 1.0f + fabsf(v - nearest);"),
        ("d *= sigma * (1.0f + z * (1.0f - sigma));", "d *= sigma;"),
        ("lx[size_t(r) * wide_x + at] = d_drive", "lx[size_t(r) * wide_x + at] += d_drive"),
        ("r < steps ? 0.0f : ls[size_t(r - steps) * wide + at]", "0.0f"),
    ];
    prove(&source("encode.cu"), &errors, |kernels| {
        for (i, config) in neurons().iter().enumerate() {
            let steps = STEPS[i % 4];
            for (channels, population, conv, silu, delays, kernel) in
                [(7, 1, 1, false, 1, 0.0), (48, 1, 4, false, 3, 0.7), (9, 2, 3, true, 4, 0.0), (6, 2, 1, true, 1, 0.5)]
            {
                let dims = EncodeDims { streams: 3, channels, population, conv, silu, delays };
                for temporal in [true, false] {
                    encode_against_twin(kernels, config, dims, steps, kernel, temporal)?;
                }
            }
        }
        Ok(())
    });
}

#[allow(clippy::too_many_lines, reason = "one case from its making to its end")]
fn encode_against_twin(
    kernels: &Kernels,
    config: &NeuronConfig,
    dims: EncodeDims,
    steps: usize,
    kernel: f32,
    temporal: bool,
) -> Found {
    let EncodeDims { streams, channels, population, conv, silu, delays } = dims;
    let (neuron, m, with_kernel) = (Neuron::<f32>::new(config), dims.neurons(), kernel > 0.0);
    let (wide, wide_x) = (streams * m, streams * channels);
    let what = format!("{:?} neurons, {dims:?}, {steps} steps, temporal {temporal}", config.levels);
    let gain: Vec<f32> = drawn(1, m).iter().map(|g| 1.5 + 0.5 * g).collect();
    let (current, taps) = (scaled(&drawn(2, m), 0.3), drawn(3, conv * channels));
    let delay = drawn(4, delays * m);
    let params = EncodeParams {
        gain: &gain,
        current: (population == 2).then_some(&current[..]),
        conv: (conv > 1).then_some(&taps[..]),
        delays: (delays > 1).then_some(&delay[..]),
        kernel,
        step: None,
    };
    let mut tape = EncodeTape::new(&dims, steps, with_kernel);
    tape.x = scaled(&drawn(5, tape.x.len()), 2.0);
    tape.v[..wide].copy_from_slice(&drawn(6, wide));
    let old = (delays - 1) * wide;
    tape.s[..old].copy_from_slice(&drawn(7, old).iter().map(|s| s.round()).collect::<Vec<_>>());
    tape.psi = drawn(8, tape.psi.len());
    let start = tape.clone();
    let mut psi = vec![0.0; steps * wide];
    encode::forward(&dims, &neuron, &params, steps, &mut tape, &mut psi);
    let constants = neuron.constants();
    let sizes = [steps, streams, channels, population, conv, usize::from(silu), delays];
    let shape = || Vec::from(sizes.map(size));
    let mut got = start.clone();
    let mut c = vec![f32::NAN; steps * wide_x];
    let mut got_psi = vec![f32::NAN; steps * wide];
    let (grid, block) = spread_streams(m, streams);
    let mut args = shape();
    args.extend([
        Arg::F32(kernel),
        Arg::In(&constants),
        Arg::In(&gain),
        maybe(params.current),
        maybe(params.conv),
        maybe(params.delays),
        Arg::In(&start.x),
        Arg::Out(&mut c),
        Arg::Out(&mut got.v),
        Arg::Out(&mut got.s),
        maybe(with_kernel.then_some(&start.psi[..])),
        Arg::Out(&mut got_psi),
    ]);
    kernels.launch("encode_forward", grid, block, &mut args);
    drop(args);
    // numbers that pass through SiLU or no levels at all are those of another exponential
    let exact = if silu || config.levels == Levels::Analog { FORWARD } else { 0.0 };
    close(&format!("spikes of {what}"), &got.s, &tape.s, if config.levels == Levels::Analog { FORWARD } else { 0.0 })?;
    close(&format!("membrane of {what}"), &got.v, &tape.v, exact)?;
    close(&format!("psi of {what}"), &got_psi, &psi, exact)?;
    if conv > 1 {
        close(&format!("convolution of {what}"), &c, &tape.c, 0.0)?;
    }
    // back
    let penalty = 0.05;
    let mut adjoint = EncodeAdjoint::new(&dims, with_kernel);
    for (i, part) in adjoint.parts_mut().into_iter().enumerate() {
        part.copy_from_slice(&drawn(20 + i as u64, part.len()));
    }
    let mut late = adjoint.clone();
    let d_psi = drawn(9, steps * wide);
    let (mut grads, mut dx, mut scratch) =
        (EncodeGrads::zero(&dims), vec![0.0; steps * wide_x], EncodeScratch::default());
    let mut spent = d_psi.clone();
    encode::reverse(
        &dims,
        &neuron,
        &params,
        steps,
        &tape,
        &mut spent,
        (temporal, penalty),
        &mut adjoint,
        &mut grads,
        &mut dx,
        &mut scratch,
    );
    let drive = if conv > 1 { &tape.c } else { &tape.x };
    let [mut ds, mut d_input, mut d_gain, mut d_current, mut d_delay] =
        [(delays - 1 + steps) * wide, steps * wide, wide, wide, delays * wide].map(|n| vec![f32::NAN; n]);
    let mut spent = d_psi;
    let lpsi = if with_kernel { Arg::Out(&mut late.psi) } else { Arg::Null };
    let mut args = shape();
    args.extend([
        flag(temporal),
        Arg::F32(penalty),
        Arg::F32(kernel),
        Arg::In(&constants),
        maybe(params.delays),
        Arg::In(drive),
        Arg::In(&tape.v),
        Arg::In(&tape.s),
        Arg::Out(&mut spent),
        Arg::Out(&mut late.v),
        Arg::Out(&mut late.s),
        lpsi,
        Arg::Out(&mut ds),
        Arg::Out(&mut d_input),
        Arg::Out(&mut d_gain),
        Arg::Out(&mut d_current),
        Arg::Out(&mut d_delay),
    ]);
    kernels.launch("encode_reverse", grid, block, &mut args);
    drop(args);
    let [mut d_drive, mut got_dx, mut d_taps] =
        [(conv - 1 + steps) * wide_x, steps * wide_x, conv * wide_x].map(|n| vec![f32::NAN; n]);
    let (grid, block) = spread_streams(channels, streams);
    let mut args = shape();
    args.truncate(6); // delays are behind it
    args.extend([
        flag(temporal),
        Arg::In(&gain),
        maybe(params.conv),
        Arg::In(drive),
        Arg::In(&tape.x),
        Arg::In(&d_input),
        Arg::Out(&mut late.x),
        Arg::Out(&mut d_drive),
        Arg::Out(&mut got_dx),
        Arg::Out(&mut d_taps),
    ]);
    kernels.launch("encode_reverse_inputs", grid, block, &mut args);
    drop(args);
    close(&format!("gradient of the input of {what}"), &got_dx, &dx, GRADIENT)?;
    close(&format!("gradient of the gains of {what}"), &summed(&d_gain, m), &grads.gain, GRADIENT)?;
    close(&format!("gradient of the currents of {what}"), &summed(&d_current, m), &grads.current, GRADIENT)?;
    if conv > 1 {
        close(&format!("gradient of the taps of {what}"), &summed(&d_taps, conv * channels), &grads.conv, GRADIENT)?;
    }
    if delays > 1 {
        close(&format!("gradient of the delays of {what}"), &summed(&d_delay, delays * m), &grads.delays, GRADIENT)?;
    }
    let [x, v, s, psi] = adjoint.parts_mut();
    for ((name, want), got) in
        [("x", x), ("v", v), ("s", s), ("psi", psi)].into_iter().zip([&late.x, &late.v, &late.s, &late.psi])
    {
        close(&format!("adjoint of {name} of {what}"), got, want, GRADIENT)?;
    }
    Ok(())
}
