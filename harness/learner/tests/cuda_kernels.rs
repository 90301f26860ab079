//! The CUDA kernels, compiled for the host, against their twins in Rust. Runs wherever a C++ compiler is.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use learner::ctc::Transcripts;
use learner::{AdamW, AdamWConfig, Group, Result, Targets, loss_and_gradient, read_f32};
use standins::{Arg, FORWARD, GRADIENT, Kernels, close, drawn, near, prove};

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda").join(name)
}

#[test]
fn cuda_kernels_loss() {
    let errors = [
        ("sum = warp_sum(sum);\n  const float inverse", "const float inverse"),
        ("(unsigned(i) == wanted ? 1.0f : 0.0f)", "0.0f"),
        ("g[i] = (g[i] - p[i]) * scale;", "g[i] = g[i] * scale;"),
        ("label + size_t(row / steps) * outputs", "label + size_t(row % steps) * outputs"),
        (
            "const float scale = float(weight[row] / *total) / float(outputs);",
            "const float scale = float(weight[row] / *total);",
        ),
        ("double part = 0.0;", "double part = 1.0;"),
        // what rows without weight hold gets into the loss, or stays in the gradient
        (
            "if (unweighted(weight[row], outputs, g, losses + row)) return;\n  const double log_sum = softmax(z, g, outputs);\n  const float scale = float(weight[row] / *total);\n  const unsigned",
            "const double log_sum = softmax(z, g, outputs);\n  const float scale = float(weight[row] / *total);\n  const unsigned",
        ),
        (
            "if (unweighted(weight[row], outputs, g, losses + row)) return;\n  const double log_sum = softmax(z, g, outputs);\n  const float scale = float(weight[row] / *total);\n  double",
            "const double log_sum = softmax(z, g, outputs);\n  const float scale = float(weight[row] / *total);\n  double",
        ),
        ("if (unweighted(weight[row], outputs, g, losses + row)) return;\n  const float scale", "const float scale"),
        ("for (int i = threadIdx.x; i < outputs; i += 32) g[i] = 0.0f;", ""),
        ("if (threadIdx.x == 0) *loss = 0.0;", ""),
        // exponentials that overflow, or vanish all together
        ("top = warp_max(top);", "top = 0.0f;"),
        ("log1p(double(expf(-fabsf(z[i]))))", "log1p(double(expf(-z[i])))"),
        // logits that are no numbers and pass for some
        ("const float e = expf(z[i] - top);", "const float e = z[i] <= top ? expf(z[i] - top) : 0.0f;"),
        // a class that is no output: the next row's logit stands there
        (
            "wanted < unsigned(outputs) ? weight[row] * (log_sum - double(z[wanted])) : nan(\"\")",
            "weight[row] * (log_sum - double(z[wanted]))",
        ),
    ];
    prove(&source("loss.cu"), &errors, |kernels| {
        for (b, k, o) in [(2, 1, 5), (3, 31, 2), (2, 32, 33), (3, 33, 256), (1, 32, 71)] {
            for logits in [Logits::Ordinary, Logits::Far, Logits::Broken] {
                loss_against_twin(kernels, [b, k, o], logits).map_err(|e| e.to_string())??;
            }
            no_output_is_no_number(kernels, [b, k, o])?;
        }
        Ok(())
    });
}

/// What logits are like in rows that have a weight. Those in rows without one are no numbers, which nobody may see.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Logits {
    Ordinary,
    /// Rows around 200 and around -200, whose exponentials are no numbers of 32 bits.
    Far,
    /// One of the first row with a weight is no number.
    Broken,
}

fn weights(rows: usize) -> Vec<f32> {
    (0..rows).map(|i| [1.0, 0.0, 0.5, 2.0][(i + 2) % 4]).collect()
}

fn logits(kind: Logits, weight: &[f32], o: usize) -> Vec<f32> {
    let mut z: Vec<f32> = drawn(1, weight.len() * o).iter().map(|z| z * 6.0).collect();
    for (i, (row, weight)) in z.chunks_mut(o).zip(weight).enumerate() {
        let far = [200.0, -200.0][i / 2 % 2];
        if *weight == 0.0 {
            row.fill(f32::NAN);
        } else if kind == Logits::Far {
            for z in row {
                *z += far;
            }
        }
    }
    if kind == Logits::Broken {
        z[o - 1] = f32::NAN;
    }
    z
}

fn loss_against_twin(
    kernels: &Kernels,
    [b, k, o]: [usize; 3],
    kind: Logits,
) -> Result<std::result::Result<(), String>> {
    let rows = b * k;
    let weight = weights(rows);
    let z = logits(kind, &weight, o);
    let classes: Vec<u32> = (0..rows).map(|i| (i * 7 % o) as u32).collect();
    let label: Vec<f32> = drawn(3, b * o).iter().map(|l| f32::from(*l > 0.0)).collect();
    let mut posterior: Vec<f32> = drawn(4, rows * o).iter().map(|p| p.abs()).collect();
    for row in posterior.chunks_mut(o) {
        let sum: f32 = row.iter().sum();
        for p in row {
            *p /= sum;
        }
    }
    let cpu = Device::Cpu;
    let logits = Tensor::from_slice(&z, (b, k, o), &cpu)?;
    let weights = Tensor::from_slice(&weight, (b, k), &cpu)?;
    let targets = [
        Targets::Classes { class: Tensor::from_slice(&classes, (b, k), &cpu)?, weight: weights.clone() },
        Targets::Posteriors { probability: Tensor::from_slice(&posterior, (b, k, o), &cpu)?, weight: weights.clone() },
        Targets::Labels { label: Tensor::from_slice(&label, (b, o), &cpu)?, weight: weights },
    ];
    for y in &targets {
        let mut want = vec![0.0; rows * o];
        let loss = loss_and_gradient(&logits, y, &mut want)?.expect("weights");
        let (mut total, mut losses, mut sum) = ([f64::NAN], vec![f64::NAN; rows], [f64::NAN]);
        let mut got = vec![f32::NAN; rows * o];
        let whole = ([1, 1, 1], [64, 1, 1]);
        kernels.launch(
            "loss_total_weight",
            whole.0,
            whole.1,
            &mut [Arg::I32(rows as i32), Arg::In(&weight), Arg::Wide(&mut total)],
        );
        let (name, mut args) = match y {
            Targets::Classes { .. } => ("loss_classes", vec![Arg::I32(o as i32), Arg::In(&z), Arg::Index(&classes)]),
            Targets::Posteriors { .. } => {
                ("loss_posteriors", vec![Arg::I32(o as i32), Arg::In(&z), Arg::In(&posterior)])
            }
            Targets::Labels { .. } => {
                ("loss_labels", vec![Arg::I32(k as i32), Arg::I32(o as i32), Arg::In(&z), Arg::In(&label)])
            }
            Targets::Transcripts { .. } => unreachable!("none of them"),
        };
        args.extend([Arg::In(&weight), Arg::WideIn(&total), Arg::Wide(&mut losses), Arg::Out(&mut got)]);
        kernels.launch(name, [rows as u32, 1, 1], [32, 1, 1], &mut args);
        drop(args);
        let mut args = [Arg::I32(rows as i32), Arg::WideIn(&losses), Arg::Wide(&mut sum)];
        kernels.launch("loss_sum", whole.0, whole.1, &mut args);
        let what = format!("{name} of {b} x {k} x {o}, {kind:?} logits");
        let found = near(&what, sum[0] / total[0], loss, FORWARD).and_then(|()| {
            // gradients are small where there are many rows: as if there were one
            let scaled = |g: &[f32]| g.iter().map(|g| g * total[0] as f32).collect::<Vec<_>>();
            close(&what, &scaled(&got), &scaled(&want), GRADIENT)
        });
        if found.is_err() {
            return Ok(found);
        }
    }
    Ok(Ok(()))
}

/// A kernel cannot refuse: where the twin does, the loss of a class that is no output is no number, and the others' are what they are.
fn no_output_is_no_number(kernels: &Kernels, [b, k, o]: [usize; 3]) -> std::result::Result<(), String> {
    let rows = b * k;
    let (z, weight, total) = (drawn(1, rows * o), vec![1.0; rows], [rows as f64]);
    let mut classes: Vec<u32> = (0..rows).map(|i| (i * 7 % o) as u32).collect();
    classes[0] = o as u32;
    let (mut losses, mut gradient) = (vec![0.0; rows], vec![f32::NAN; rows * o]);
    let mut args = [
        Arg::I32(o as i32),
        Arg::In(&z),
        Arg::Index(&classes),
        Arg::In(&weight),
        Arg::WideIn(&total),
        Arg::Wide(&mut losses),
        Arg::Out(&mut gradient),
    ];
    kernels.launch("loss_classes", [rows as u32, 1, 1], [32, 1, 1], &mut args);
    let rest = losses[1..].iter().all(|loss| loss.is_finite());
    if losses[0].is_nan() && rest { Ok(()) } else { Err(format!("class {o} of {o}: losses {losses:?}")) }
}

#[test]
fn cuda_kernels_adamw() {
    let errors = [
        ("sum += double(g[i]) * double(g[i]);", "sum += double(g[i]);"),
        ("norm > double(clip) ? float(double(clip) / norm) : 1.0f", "1.0f"),
        ("v[i] = beta2 * v[i] + (1.0f - beta2) * gi * gi;", "v[i] = beta2 * v[i] + (1.0f - beta2) * gi;"),
        ("w[i] = keep[p] * old - rate[p] * direction;", "w[i] = old - rate[p] * direction;"),
        ("(float *)seconds[p] + from[chunk];", "(float *)seconds[p];"),
        ("if (isfinite(norm)) {", "{"),
        (
            "if (int(threadIdx.x) < by) parts[threadIdx.x] += parts[threadIdx.x + by];\n    __syncthreads();",
            "if (int(threadIdx.x) < by) parts[threadIdx.x] += parts[threadIdx.x + by];",
        ),
    ];
    prove(&source("adamw.cu"), &errors, |kernels| {
        for clip in [0.5, 1e9] {
            adamw_against_twin(kernels, clip).map_err(|e| e.to_string())??;
        }
        Ok(())
    });
}

#[allow(clippy::too_many_lines, reason = "one case from its making to its end")]
fn adamw_against_twin(kernels: &Kernels, clip: f64) -> Result<std::result::Result<(), String>> {
    const CHUNK: usize = 1000;
    let shapes = [vec![33, 70], vec![7], vec![1], vec![2500]];
    let len = |shape: &[usize]| shape.iter().product::<usize>();
    let vars: Vec<Var> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| Ok(Var::from_vec(drawn(i as u64, len(s)), s.as_slice(), &Device::Cpu)?))
        .collect::<Result<_>>()?;
    let config = AdamWConfig::default();
    let slots = vars.iter().enumerate().map(|(i, v)| (i.to_string(), v.clone(), Group::by_rank(v)));
    let mut twin = AdamW::new(config, slots)?;
    let mut weights: Vec<Vec<f32>> = vars.iter().map(|v| read_f32(v)).collect::<Result<_>>()?;
    let (mut firsts, mut seconds): (Vec<Vec<f32>>, Vec<Vec<f32>>) =
        weights.iter().map(|w| (vec![0.0; w.len()], vec![0.0; w.len()])).unzip();
    let chunks: Vec<[u32; 3]> = weights
        .iter()
        .enumerate()
        .flat_map(|(p, w)| {
            (0..w.len()).step_by(CHUNK).map(move |at| [p, at, CHUNK.min(w.len() - at)].map(|n| n as u32))
        })
        .collect();
    let [of, from, len] = [0, 1, 2].map(|i| chunks.iter().map(|c| c[i]).collect::<Vec<u32>>());
    let count = chunks.len() as u32;
    let rate = 1e-2;
    let keep: Vec<f32> =
        shapes.iter().map(|s| if s.len() >= 2 { 1.0 - (rate * config.weight_decay) as f32 } else { 1.0 }).collect();
    let rates = vec![rate as f32; shapes.len()];
    for update in 1..=4i32 {
        let mut grads: Vec<Vec<f32>> =
            weights.iter().enumerate().map(|(i, w)| drawn(10 * update as u64 + i as u64, w.len())).collect();
        let broken = update == 3; // a gradient that is no number changes nothing
        if broken {
            grads[3][2000] = f32::NAN;
        }
        let mut squares = vec![f64::NAN; chunks.len()];
        let addresses = grads.iter().map(|g| g.as_ptr() as u64).collect::<Vec<u64>>();
        kernels.launch(
            "adamw_squares",
            [count, 1, 1],
            [64, 1, 1],
            &mut [
                Arg::Index(&of),
                Arg::Index(&from),
                Arg::Index(&len),
                Arg::Table(&addresses),
                Arg::Wide(&mut squares),
            ],
        );
        let sum = [squares.iter().sum::<f64>()];
        let norm = grads.iter().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        if let Err(e) = near("gradient norm", sum[0].sqrt(), norm, FORWARD) {
            return Ok(Err(e));
        }
        // an update that is not made does not count
        let t = if update > 3 { update - 1 } else { update };
        let correct = |beta: f64| (1.0 / (1.0 - beta.powi(t))) as f32;
        let mut moved = vec![f64::NAN; chunks.len()];
        let before = weights.clone();
        // addresses through which the kernel writes
        let tables = [&mut weights, &mut firsts, &mut seconds].map(|arrays| {
            arrays.iter_mut().map(|array| array.as_mut_ptr().expose_provenance() as u64).collect::<Vec<u64>>()
        });
        kernels.launch(
            "adamw_step",
            [count, 1, 1],
            [64, 1, 1],
            &mut [
                Arg::F32(config.beta1 as f32),
                Arg::F32(config.beta2 as f32),
                Arg::F32(correct(config.beta1)),
                Arg::F32(correct(config.beta2)),
                Arg::F32(config.epsilon as f32),
                Arg::F32(clip as f32),
                Arg::WideIn(&sum),
                Arg::Index(&of),
                Arg::Index(&from),
                Arg::Index(&len),
                Arg::In(&keep),
                Arg::In(&rates),
                Arg::Table(&addresses),
                Arg::Table(&tables[0]),
                Arg::Table(&tables[1]),
                Arg::Table(&tables[2]),
                Arg::Wide(&mut moved),
            ],
        );
        if broken {
            if weights != before {
                return Ok(Err("a gradient that is no number moved weights".into()));
            }
            continue;
        }
        let gradients = grads.iter().zip(&shapes).map(|(g, s)| Ok(Tensor::from_slice(g, s.as_slice(), &Device::Cpu)?));
        let gradients = gradients.collect::<Result<Vec<_>>>()?;
        let scale = if norm > clip { clip / norm } else { 1.0 };
        let want = twin.step(&gradients, scale, rate)?;
        let found = near("way of the weights", moved.iter().sum::<f64>().sqrt(), want, FORWARD).and_then(|()| {
            for (i, (got, var)) in weights.iter().zip(&vars).enumerate() {
                let want = read_f32(var).map_err(|e| e.to_string())?;
                close(&format!("parameter {i} after update {update}"), got, &want, FORWARD)?;
            }
            Ok(())
        });
        if found.is_err() {
            return Ok(found);
        }
    }
    Ok(Ok(()))
}

#[test]
fn cuda_kernels_ctc() {
    let errors = [
        ("if (skips(labels, s)) sum = log_add(sum, past[s - 2]);", ""),
        ("labels[s / 2] != labels[s / 2 - 1]", "true"),
        ("double sum = s >= n - 2 ? 0.0 : -INFINITY;", "double sum = s >= n - 1 ? 0.0 : -INFINITY;"),
        ("gamma += exp(alpha", "gamma = exp(alpha"),
        ("for (int i = threadIdx.x; i < K * outputs; i += blockDim.x) g[i] = 0.0f;", ""),
        ("now[s] = sum + log_p;\n    }\n    __syncthreads();", "now[s] = sum + log_p;\n    }"),
        // logits that are no numbers pass for labels that do not fit, and the other way round
        ("isnan(all) ? all : INFINITY", "INFINITY"),
        ("isnan(all) ? all : INFINITY", "all"),
        ("if (!isfinite(all)) return;", ""),
        // exponentials that overflow
        ("top = fmax(top, double(row[i]));", "top = 0.0;"),
    ];
    prove(&source("ctc.cu"), &errors, |kernels| {
        let labels = |n: usize, o: usize| (0..n).map(|i| 1 + (i * 5 / 2 % (o - 1)) as u32).collect::<Vec<_>>();
        for (k, o, cases) in [
            (1, 3, vec![(1, vec![2]), (1, vec![]), (0, vec![]), (0, vec![1])]),
            (31, 5, vec![(31, labels(9, 5)), (17, vec![1, 1, 1]), (2, vec![1, 1])]),
            (33, 29, vec![(33, labels(12, 29)), (32, labels(30, 29)), (31, vec![4, 4])]),
        ] {
            for logits in [Logits::Ordinary, Logits::Far, Logits::Broken] {
                ctc_against_twin(kernels, k, o, &cases, logits)?;
            }
        }
        Ok(())
    });
}

fn ctc_against_twin(
    kernels: &Kernels,
    k: usize,
    o: usize,
    cases: &[(usize, Vec<u32>)],
    kind: Logits,
) -> std::result::Result<(), String> {
    let b = cases.len();
    let mut z: Vec<f32> = drawn(k as u64, b * k * o).iter().map(|z| z * 4.0).collect();
    match kind {
        Logits::Ordinary => {}
        // in 64 bits exponentials reach further than those of the other losses
        Logits::Far => {
            for z in &mut z {
                *z += 800.0;
            }
        }
        Logits::Broken => z[o - 1] = f32::NAN,
    }
    let transcripts = Transcripts {
        labels: cases.iter().map(|(_, labels)| labels.clone()).collect(),
        steps: cases.iter().map(|(steps, _)| *steps).collect(),
        blank: 0,
    };
    let wide: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
    let (losses, want) = transcripts.losses_and_gradient(&wide, [b, k, o]).map_err(|e| e.to_string())?;
    let longest = cases.iter().map(|(_, labels)| labels.len()).max().unwrap_or(0);
    let mut padded = vec![0u32; b * longest];
    for ((_, labels), row) in cases.iter().zip(padded.chunks_mut(longest)) {
        row[..labels.len()].copy_from_slice(labels);
    }
    let lengths: Vec<u32> = cases.iter().map(|(_, labels)| labels.len() as u32).collect();
    let steps: Vec<u32> = cases.iter().map(|(steps, _)| *steps as u32).collect();
    let states = 2 * longest + 1;
    let [mut sums, mut alpha, mut beta] = [b * k, b * k * states, b * 2 * states].map(|n| vec![f64::NAN; n]);
    let (mut got_losses, mut got) = (vec![f64::NAN; b], vec![f32::NAN; b * k * o]);
    kernels.launch(
        "ctc",
        [b as u32, 1, 1],
        [32, 1, 1],
        &mut [
            Arg::I32(k as i32),
            Arg::I32(o as i32),
            Arg::I32(longest as i32),
            Arg::U32(0),
            Arg::F32(transcripts.total_steps() as f32),
            Arg::In(&z),
            Arg::Index(&padded),
            Arg::Index(&lengths),
            Arg::Index(&steps),
            Arg::Wide(&mut sums),
            Arg::Wide(&mut alpha),
            Arg::Wide(&mut beta),
            Arg::Wide(&mut got_losses),
            Arg::Out(&mut got),
        ],
    );
    for (i, (got, want)) in got_losses.iter().zip(&losses).enumerate() {
        near(&format!("loss of utterance {i} of {k} steps, {kind:?} logits"), *got, *want, FORWARD)?;
    }
    let want: Vec<f32> = want.iter().map(|&g| g as f32).collect();
    close(&format!("gradient of {b} utterances of {k} steps, {kind:?} logits"), &got, &want, FORWARD)
}
