//! The CUDA kernels, compiled for the host, against their twins in Rust. Runs wherever a C++ compiler is.

use std::path::{Path, PathBuf};

use baselines::ops::{Cell, LifState, Neuron, Threshold, lif, lstm, lstm_slow, rnn, rnn_slow, scan_slow};
use candle_core::{Device, Result, Tensor, Var};
use standins::{Arg, FORWARD, GRADIENT, Kernels, close, drawn, prove};

/// Steps around a block of 32, and one step.
const STEPS: [usize; 4] = [1, 31, 32, 33];

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda").join(name)
}

fn tensor(values: &[f32], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(values, shape, &Device::Cpu)
}

fn values(t: &Tensor) -> Result<Vec<f32>> {
    t.flatten_all()?.to_vec1()
}

/// `[rows, columns]` on its side.
fn turned(v: &[f32], columns: usize) -> Vec<f32> {
    let rows = v.len() / columns;
    (0..v.len()).map(|i| v[i % rows * columns + i / rows]).collect()
}

/// `x w + b` of rows, and what a gradient of it gives: the part of the layers that is a product of a library.
fn affine(x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
    let (outputs, inputs) = (b.len(), w.len() / b.len());
    let row = |x: &[f32]| {
        let mut y = b.to_vec();
        for (x, w) in x.iter().zip(w.chunks(outputs)) {
            y.iter_mut().zip(w).for_each(|(y, w)| *y = x.mul_add(*w, *y));
        }
        y
    };
    x.chunks(inputs).flat_map(row).collect()
}

#[test]
fn cuda_kernels_lif() {
    let neurons = [None, Some(Threshold { decay: 0.9, strength: 0.2 })];
    let neuron = |adaptive| Neuron { decay: 0.8, threshold: 0.7, slope: 25.0, adaptive };
    let check = |kernels: &Kernels| {
        for (steps, width, recurrent) in STEPS.into_iter().flat_map(|t| [(t, 48, true), (t, 7, true), (t, 33, false)]) {
            for adaptive in neurons {
                for broken in [false, true] {
                    lif_against_twin(kernels, 3, steps, width, recurrent, neuron(adaptive), broken)?;
                }
            }
        }
        Ok(())
    };
    let errors = [
        ("u[k] = fmaf(decay, u[k], reset);", "u[k] = fmaf(decay, u[k], sum);"),
        ("a[k] = fmaf(rho, a[k], past[k]);", "a[k] = fmaf(rho, a[k], spikes[at]);"),
        (
            "if (past[j] > 0.0f) sum += w[size_t(j) * width + k];",
            "if (past[j] > 0.0f) sum += w[size_t(k) * width + j];",
        ),
        ("float ds = 0.0f;", "float ds = 1e-2f;"),
        ("da[k] = fmaf(rho, da[k], -strength * fired);", "da[k] = fmaf(rho, da[k], strength * fired);"),
        // a membrane that is no number, which looks silent or as if it fired
        ("over > 0.0f ? 1.0f : over <= 0.0f ? 0.0f : over", "over > 0.0f ? 1.0f : 0.0f"),
        ("over > 0.0f ? 1.0f : over <= 0.0f ? 0.0f : over", "over <= 0.0f ? 0.0f : 1.0f"),
        // a barrier that is missing: threads go on while others are still at the step before
        ("if (w) __syncthreads();", ""),
    ];
    prove(&source("lif.cu"), &errors, check);
}

/// `broken`: the membranes of two neurons, in two streams, are no numbers.
fn lif_against_twin(
    kernels: &Kernels,
    streams: usize,
    steps: usize,
    width: usize,
    recurrent: bool,
    neuron: Neuron,
    broken: bool,
) -> std::result::Result<(), String> {
    // the input's weights are the unit matrix, so that the twin's gradient of `x` is that of the current
    let identity: Vec<f32> = (0..width * width).map(|i| f32::from(u8::from(i % width == i / width))).collect();
    let w_recurrent: Vec<f32> = drawn(3, width * width).iter().map(|w| w * 0.4).collect();
    let w = if recurrent { [&identity[..], &w_recurrent].concat() } else { identity.clone() };
    let current = drawn(1, streams * steps * width);
    let (mut membrane, adaptation) = (drawn(4, streams * width), drawn(5, streams * width));
    if broken {
        membrane[4] = f32::NAN;
        membrane[width + 2] = f32::NAN;
    }
    let dy = drawn(6, streams * steps * width);
    let twin = || -> Result<_> {
        let x = Var::from_tensor(&tensor(&current, &[streams, steps, width])?)?;
        let w = tensor(&w, &[w.len() / width, width])?;
        let adaptation = neuron.adaptive.map(|_| tensor(&adaptation, &[streams, width])).transpose()?;
        let before = LifState { membrane: tensor(&membrane, &[streams, width])?, adaptation };
        let (spikes, after) = lif(&x, &w, &tensor(&vec![0.0; width], &[width])?, &before, neuron)?;
        let loss = (&spikes * tensor(&dy, &[streams, steps, width])?)?.sum_all()?;
        let dx = values(loss.backward()?.get(&x).expect("a gradient"))?;
        let adaptation = after.adaptation.as_ref().map(values).transpose()?;
        Ok((values(&spikes)?, values(&after.membrane)?, adaptation, dx))
    };
    let (spikes, membrane_after, adaptation_after, d_current) = twin().map_err(|e| e.to_string())?;
    let what =
        format!("lif of {steps} steps, {width} neurons, recurrent {recurrent}, broken {broken}, {:?}", neuron.adaptive);
    let (rho, strength) = neuron.adaptive.map_or((0.0, 0.0), |a| (a.decay, a.strength));
    let n = streams * width;
    let (mut excess, mut u) = (current, membrane);
    let mut a = if neuron.adaptive.is_some() { adaptation } else { vec![0.0; n] };
    let (mut before, mut got) = (vec![f32::NAN; n], vec![f32::NAN; n * steps]);
    // connected neurons have a block to themselves, others are spread over several
    let (grid, block) = if recurrent { ([1, streams as u32, 1], 32) } else { ([3, streams as u32, 1], 16) };
    let weights = |w| if recurrent { Arg::In(w) } else { Arg::Null };
    kernels.launch(
        "lif_forward",
        grid,
        [block, 1, 1],
        &mut [
            Arg::I32(steps as i32),
            Arg::I32(width as i32),
            Arg::F32(neuron.decay),
            Arg::F32(neuron.threshold),
            Arg::F32(rho),
            Arg::F32(strength),
            weights(&w_recurrent),
            Arg::Out(&mut excess),
            Arg::Out(&mut u),
            Arg::Out(&mut a),
            Arg::Out(&mut before),
            Arg::Out(&mut got),
        ],
    );
    close(&format!("spikes, {what}"), &got, &spikes, 0.0)?;
    close(&format!("membrane, {what}"), &u, &membrane_after, 0.0)?;
    if let Some(want) = adaptation_after {
        close(&format!("adaptation, {what}"), &a, &want, 0.0)?;
    }
    let (mut du, mut da, mut got) = (vec![0.0; n], vec![0.0; n], vec![f32::NAN; n * steps]);
    let w_t = turned(&w_recurrent, width);
    kernels.launch(
        "lif_backward",
        grid,
        [block, 1, 1],
        &mut [
            Arg::I32(steps as i32),
            Arg::I32(width as i32),
            Arg::F32(neuron.decay),
            Arg::F32(neuron.slope),
            Arg::F32(rho),
            Arg::F32(strength),
            weights(&w_t),
            Arg::In(&excess),
            Arg::In(&dy),
            Arg::Out(&mut du),
            Arg::Out(&mut da),
            Arg::Out(&mut got),
        ],
    );
    // the product with the unit matrix spreads what is no number over its row of the twin's gradient, so look at the third stream alone
    let from = if broken { 2 * steps * width } else { 0 };
    close(&format!("gradient, {what}"), &got[from..], &d_current[from..], GRADIENT)
}

#[test]
fn cuda_kernels_lstm() {
    let errors = [
        ("const float c = f * c_before[k] + i * g;", "const float c = f * c_before[k] + i * o;"),
        ("out[size_t(t) * width + k] = o * tanhf(c);", "out[size_t(t) * width + k] = o * c;"),
        ("dc[k] = d_cell * f;", "dc[k] = d_cell;"),
        ("for (int j = 0; j < 4 * width; ++j)", "for (int j = 0; j < 3 * width; ++j)"),
        ("if (t) __syncthreads();", ""),
    ];
    prove(&source("lstm.cu"), &errors, |kernels| {
        for (steps, width) in STEPS.into_iter().flat_map(|t| [(t, 48), (t, 7)]) {
            lstm_against_twin(kernels, 3, steps, 5, width)?;
        }
        Ok(())
    });
}

fn lstm_against_twin(
    kernels: &Kernels,
    streams: usize,
    steps: usize,
    inputs: usize,
    width: usize,
) -> std::result::Result<(), String> {
    let x = drawn(1, streams * steps * inputs);
    let w: Vec<f32> = drawn(2, (inputs + width) * 4 * width).iter().map(|w| w * 0.5).collect();
    let (b, hidden, cell) = (drawn(3, 4 * width), drawn(4, streams * width), drawn(5, streams * width));
    let dy = drawn(6, streams * steps * width);
    let (w_in, w_hidden) = w.split_at(inputs * 4 * width);
    let mut gates = affine(&x, w_in, &b);
    // the gradient of a sum behind each gate is that of a bias that each step of each stream has of its own
    let twin = || -> Result<_> {
        let own = Var::from_tensor(&tensor(&gates, &[streams, steps, 4 * width])?)?;
        let identity: Vec<f32> =
            (0..16 * width * width).map(|i| f32::from(u8::from(i % (4 * width) == i / (4 * width)))).collect();
        let w = tensor(&[&identity[..], w_hidden].concat(), &[5 * width, 4 * width])?;
        let no_bias = tensor(&vec![0.0; 4 * width], &[4 * width])?;
        let state = |v: &[f32]| tensor(v, &[streams, width]);
        let (y, c) = lstm_slow(&own, &w, &no_bias, &state(&hidden)?, &state(&cell)?)?;
        let loss = (&y * tensor(&dy, &[streams, steps, width])?)?.sum_all()?;
        let d_gates = values(loss.backward()?.get(&own).expect("a gradient"))?;
        // and the fused one agrees with it
        let wide = tensor(&x, &[streams, steps, inputs])?;
        let (fused, _) = lstm(
            &wide,
            &tensor(&[w_in, w_hidden].concat(), &[inputs + width, 4 * width])?,
            &tensor(&b, &[4 * width])?,
            &state(&hidden)?,
            &state(&cell)?,
        )?;
        Ok((values(&y)?, values(&c)?, values(&fused)?, d_gates))
    };
    let (y, last, fused, d_gates) = twin().map_err(|e| e.to_string())?;
    let what = format!("lstm of {steps} steps, {width} units");
    let n = streams * width;
    let (mut cells, mut out) = (vec![f32::NAN; n * steps], vec![f32::NAN; n * steps]);
    kernels.launch(
        "lstm_forward",
        [streams as u32, 1, 1],
        [32, 1, 1],
        &mut [
            Arg::I32(steps as i32),
            Arg::I32(width as i32),
            Arg::In(w_hidden),
            Arg::In(&hidden),
            Arg::In(&cell),
            Arg::Out(&mut gates),
            Arg::Out(&mut cells),
            Arg::Out(&mut out),
        ],
    );
    close(&format!("outputs, {what}"), &out, &y, FORWARD)?;
    close(&format!("outputs beside the fused operation's, {what}"), &out, &fused, FORWARD)?;
    let of_last = |s: usize| &cells[(s * steps + steps - 1) * width..][..width];
    close(&format!("cell, {what}"), &(0..streams).flat_map(of_last).copied().collect::<Vec<_>>(), &last, FORWARD)?;
    let (mut dc, mut got) = (vec![0.0; n], vec![f32::NAN; 4 * n * steps]);
    kernels.launch(
        "lstm_backward",
        [streams as u32, 1, 1],
        [32, 1, 1],
        &mut [
            Arg::I32(steps as i32),
            Arg::I32(width as i32),
            Arg::In(&turned(w_hidden, 4 * width)),
            Arg::In(&cell),
            Arg::In(&gates),
            Arg::In(&cells),
            Arg::In(&dy),
            Arg::Out(&mut dc),
            Arg::Out(&mut got),
        ],
    );
    close(&format!("gradient, {what}"), &got, &d_gates, GRADIENT)
}

#[test]
fn cuda_kernels_rnn() {
    let errors = [
        ("const float n = tanhf(x[0] + b[k] + r * u);", "const float n = tanhf(x[0] + b[k] + u);"),
        ("out[size_t(t) * width + k] = n + z * (h[k] - n);", "out[size_t(t) * width + k] = h[k] + z * (n - h[k]);"),
        ("to[3 * width] = dn * r;", "to[3 * width] = dn;"),
        ("dh[k] = d * z;", "dh[k] = d;"),
        ("out[size_t(t) * width + k] = tanhf(sum);", "out[size_t(t) * width + k] = sum;"),
        ("d_sums[at] = d * (1.0f - y[at] * y[at]);", "d_sums[at] = d * (1.0f - y[at]);"),
    ];
    prove(&source("rnn.cu"), &errors, |kernels| {
        for (steps, width) in STEPS.into_iter().flat_map(|t| [(t, 48), (t, 7)]) {
            gru_against_twin(kernels, 3, steps, 5, width)?;
            vanilla_against_twin(kernels, 3, steps, width)?;
        }
        Ok(())
    });
}

fn gru_against_twin(
    kernels: &Kernels,
    streams: usize,
    steps: usize,
    inputs: usize,
    width: usize,
) -> std::result::Result<(), String> {
    let x = drawn(1, streams * steps * inputs);
    let w: Vec<f32> = drawn(2, (inputs + width) * 3 * width).iter().map(|w| w * 0.5).collect();
    let (b, hidden, dy) = (drawn(3, 4 * width), drawn(4, streams * width), drawn(6, streams * steps * width));
    let (w_in, w_hidden) = w.split_at(inputs * 3 * width);
    let twin = || -> Result<_> {
        let x = Var::from_tensor(&tensor(&x, &[streams, steps, inputs])?)?;
        let (w, b) = (tensor(&w, &[inputs + width, 3 * width])?, Var::from_tensor(&tensor(&b, &[4 * width])?)?);
        let h = tensor(&hidden, &[streams, width])?;
        let y = rnn_slow(&x, &w, &b, &h, Cell::Gru)?;
        let loss = (&y * tensor(&dy, &[streams, steps, width])?)?.sum_all()?;
        let gradients = loss.backward()?;
        let of = |v: &Var| values(gradients.get(v).expect("a gradient"));
        Ok((values(&y)?, values(&rnn(&x, &w, &b, &h, Cell::Gru)?)?, of(&x)?, of(&b)?))
    };
    let (y, fused, dx, db) = twin().map_err(|e| e.to_string())?;
    let what = format!("GRU of {steps} steps, {width} units");
    let from_x = affine(&x, w_in, &vec![0.0; 3 * width]);
    let n = streams * width;
    let (mut sums, mut out) = (vec![f32::NAN; 4 * n * steps], vec![f32::NAN; n * steps]);
    kernels.launch(
        "gru_forward",
        [streams as u32, 1, 1],
        [32, 1, 1],
        &mut [
            Arg::I32(steps as i32),
            Arg::I32(width as i32),
            Arg::In(&from_x),
            Arg::In(w_hidden),
            Arg::In(&b),
            Arg::In(&hidden),
            Arg::Out(&mut sums),
            Arg::Out(&mut out),
        ],
    );
    close(&format!("outputs, {what}"), &out, &y, FORWARD)?;
    close(&format!("outputs beside the fused operation's, {what}"), &out, &fused, FORWARD)?;
    let (mut dh, mut d_sums) = (vec![0.0; n], vec![f32::NAN; 4 * n * steps]);
    kernels.launch(
        "gru_backward",
        [streams as u32, 1, 1],
        [32, 1, 1],
        &mut [
            Arg::I32(steps as i32),
            Arg::I32(width as i32),
            Arg::In(&turned(w_hidden, 3 * width)),
            Arg::In(&hidden),
            Arg::In(&sums),
            Arg::In(&out),
            Arg::In(&dy),
            Arg::Out(&mut dh),
            Arg::Out(&mut d_sums),
        ],
    );
    let of_bias = |k: usize| d_sums.iter().skip(k).step_by(4 * width).sum::<f32>();
    close(&format!("gradient of the bias, {what}"), &(0..4 * width).map(of_bias).collect::<Vec<_>>(), &db, GRADIENT)?;
    let from: Vec<f32> = d_sums.chunks(4 * width).flat_map(|row| row[..3 * width].to_vec()).collect();
    let back = affine(&from, &turned(w_in, 3 * width), &vec![0.0; inputs]);
    close(&format!("gradient of the input, {what}"), &back, &dx, GRADIENT)
}

fn vanilla_against_twin(
    kernels: &Kernels,
    streams: usize,
    steps: usize,
    width: usize,
) -> std::result::Result<(), String> {
    let sums = drawn(1, streams * steps * width);
    let w: Vec<f32> = drawn(2, width * width).iter().map(|w| w * 0.2).collect();
    let (hidden, dy) = (drawn(4, streams * width), drawn(6, streams * steps * width));
    let twin = || -> Result<_> {
        let identity: Vec<f32> = (0..width * width).map(|i| f32::from(u8::from(i % width == i / width))).collect();
        let x = Var::from_tensor(&tensor(&sums, &[streams, steps, width])?)?;
        let w = tensor(&[&identity[..], &w].concat(), &[2 * width, width])?;
        let (b, h) = (tensor(&vec![0.0; width], &[width])?, tensor(&hidden, &[streams, width])?);
        let y = rnn(&x, &w, &b, &h, Cell::Vanilla)?;
        let loss = (&y * tensor(&dy, &[streams, steps, width])?)?.sum_all()?;
        Ok((values(&y)?, values(loss.backward()?.get(&x).expect("a gradient"))?))
    };
    let (y, dx) = twin().map_err(|e| e.to_string())?;
    let what = format!("RNN of {steps} steps, {width} units");
    let mut out = sums;
    let (grid, block) = ([streams as u32, 1, 1], [32, 1, 1]);
    let sizes = [steps, width];
    let [t, h] = sizes.map(|n| n as i32);
    let mut args = [Arg::I32(t), Arg::I32(h), Arg::In(&w), Arg::In(&hidden), Arg::Out(&mut out)];
    kernels.launch("vanilla_forward", grid, block, &mut args);
    close(&format!("outputs, {what}"), &out, &y, FORWARD)?;
    let (w_t, mut got) = (turned(&w, width), vec![f32::NAN; out.len()]);
    let mut args = [Arg::I32(t), Arg::I32(h), Arg::In(&w_t), Arg::In(&out), Arg::In(&dy), Arg::Out(&mut got)];
    kernels.launch("vanilla_backward", grid, block, &mut args);
    close(&format!("gradient, {what}"), &got, &dx, GRADIENT)
}

#[test]
fn cuda_kernels_scan() {
    let errors = [
        (
            "state = fmaf(expf(delta * rate), state, delta * u * bc[row * 2 * states + n]);\n      term",
            "state = fmaf(expf(delta * rate), state, u * bc[row * 2 * states + n]);\n      term",
        ),
        ("if (here && t % BLOCK == 0) kept", "if (here && t == 0) kept"),
        ("to_delta = product * rate;", "to_delta = product;"),
        ("dh = carried;", "dh = g;"),
        ("for (int k = 0; k < int(blockDim.y); ++k) {", "for (int k = 1; k < int(blockDim.y); ++k) {"),
        ("__syncthreads();\n      if (r == 0", "if (r == 0"),
    ];
    prove(&source("scan.cu"), &errors, |kernels| {
        for (steps, states, channels) in STEPS.into_iter().flat_map(|t| [(t, 1, 9), (t, 8, 48), (t, 16, 7), (t, 5, 10)])
        {
            scan_against_twin(kernels, 2, steps, channels, states)?;
        }
        Ok(())
    });
}

fn scan_against_twin(
    kernels: &Kernels,
    streams: usize,
    steps: usize,
    channels: usize,
    states: usize,
) -> std::result::Result<(), String> {
    let rows = streams * steps;
    let delta: Vec<f32> = drawn(1, rows * channels).iter().map(|x| 0.3 + 0.2 * x).collect();
    let (u, bc) = (drawn(2, rows * channels), drawn(3, rows * 2 * states));
    let a: Vec<f32> = drawn(4, channels * states).iter().map(|x| -0.8 + 0.5 * x).collect();
    let (h0, dy) = (drawn(5, streams * channels * states), drawn(6, rows * channels));
    let twin = || -> Result<_> {
        let var = |v: &[f32], shape: &[usize]| Var::from_tensor(&tensor(v, shape)?);
        let (delta, u) = (var(&delta, &[streams, steps, channels])?, var(&u, &[streams, steps, channels])?);
        let (bc, a) = (var(&bc, &[streams, steps, 2 * states])?, var(&a, &[channels, states])?);
        let (y, h) = scan_slow(&delta, &u, &bc, &a, tensor(&h0, &[streams, channels, states])?)?;
        let loss = (&y * tensor(&dy, &[streams, steps, channels])?)?.sum_all()?.backward()?;
        let of = |v: &Var| values(loss.get(v).expect("a gradient"));
        Ok((values(&y)?, values(&h)?, of(&delta)?, of(&u)?, of(&bc)?, of(&a)?))
    };
    let (y, after, d_delta, d_u, d_bc, d_a) = twin().map_err(|e| e.to_string())?;
    let what = format!("scan of {steps} steps, {channels} channels, {states} states");
    let beside = |left: &[f32], right: &[f32]| -> Vec<f32> {
        left.chunks(channels).zip(right.chunks(channels)).flat_map(|(l, r)| [l, r].concat()).collect()
    };
    let du = beside(&delta, &u);
    let lanes = states.next_power_of_two() as u32;
    let per_block = 64 / lanes;
    let groups = (channels as u32).div_ceil(per_block);
    let (grid, block) = ([groups, streams as u32, 1], [lanes, per_block, 1]);
    let sizes = [steps, channels, states].map(|n| Arg::I32(n as i32));
    let (mut h, mut got) = (h0, vec![f32::NAN; rows * channels]);
    let mut kept = vec![f32::NAN; streams * steps.div_ceil(16) * channels * states];
    let [t, c, n] = sizes;
    kernels.launch(
        "scan_forward",
        grid,
        block,
        &mut [
            t,
            c,
            n,
            Arg::In(&du),
            Arg::In(&bc),
            Arg::In(&a),
            Arg::Out(&mut h),
            Arg::Out(&mut kept),
            Arg::Out(&mut got),
        ],
    );
    close(&format!("outputs, {what}"), &got, &y, FORWARD)?;
    close(&format!("state, {what}"), &h, &after, FORWARD)?;
    let (mut d_du, mut da) = (vec![f32::NAN; rows * 2 * channels], vec![f32::NAN; streams * channels * states]);
    let mut parts = vec![f32::NAN; streams * groups as usize * steps * 2 * states];
    let [t, c, n] = [steps, channels, states].map(|n| Arg::I32(n as i32));
    kernels.launch(
        "scan_backward",
        grid,
        block,
        &mut [
            t,
            c,
            n,
            Arg::In(&du),
            Arg::In(&bc),
            Arg::In(&a),
            Arg::In(&kept),
            Arg::In(&dy),
            Arg::Out(&mut d_du),
            Arg::Out(&mut parts),
            Arg::Out(&mut da),
        ],
    );
    close(&format!("gradient of steps and inputs, {what}"), &d_du, &beside(&d_delta, &d_u), GRADIENT)?;
    let sum = |v: &[f32], pieces: usize, len: usize| -> Vec<f32> {
        (0..len).map(|i| (0..pieces).map(|p| v[p * len + i]).sum()).collect()
    };
    close(&format!("gradient of the decays, {what}"), &sum(&da, streams, channels * states), &d_a, GRADIENT)?;
    let per_stream = steps * 2 * states;
    let got: Vec<f32> =
        parts.chunks(groups as usize * per_stream).flat_map(|p| sum(p, groups as usize, per_stream)).collect();
    close(&format!("gradient of B and C, {what}"), &got, &d_bc, GRADIENT)
}
