//! What any model behind the shared learner must do.

mod common;

use baselines::{
    BpttConfig, CnnConfig, LstmConfig, MambaConfig, ModelConfig, RnnConfig, TransformerConfig, build, ops::Cell,
};
use candle_core::{DType, Device, IndexOp, Tensor};
use common::{VOCABULARY, bits, classes, distance, io, learner, models, normal, size, tokens, training, zero_output};
use learner::ctc::Transcripts;
use learner::{Error, InputKind, Io, Learner, Predictor, Result, Targets};

#[test]
fn one_batch_is_learned_by_heart() -> Result<()> {
    for model in models() {
        // the derivative of a spike is a stand-in: smaller steps, more of them, and a spike more or less is felt at once
        let (rate, updates, settled) =
            if matches!(model, ModelConfig::Snn(_)) { (2e-3, 2000, 100) } else { (1e-2, 600, 1) };
        let mut l = build(&model, io(2, 16), training(rate), 3, &Device::Cpu)?;
        zero_output(&mut *l)?;
        // no stream starts with a token twice: attention over equal values cannot count them
        let (x, y) = (tokens(5, 2, 16)?, classes(&tokens(2, 2, 16)?)?);
        let mut losses = Vec::new();
        for _ in 0..updates {
            l.reset(&[true, true])?;
            l.predict(&x)?;
            losses.extend(l.learn(&y)?.loss);
        }
        assert!((losses[0] - (VOCABULARY as f64).ln()).abs() < 1e-5, "starts uniform: {}", losses[0]);
        let best = losses[updates - settled..].iter().copied().fold(f64::MAX, f64::min);
        assert!(best < 0.02, "{model:?}: {best}");
    }
    Ok(())
}

/// Three segments whose supervised steps are not equally many, one after the other, are one batch of three streams; also if
/// the run was cut off in between.
#[test]
fn accumulated_segments_make_the_update_of_one_batch() -> Result<()> {
    let weight = [[1f32, 1., 1., 1., 1., 1.], [1., 0., 0., 0., 0., 0.], [0., 1., 1., 0., 0., 0.5]];
    let weight = Tensor::new(&weight, &Device::Cpu)?;
    let (x, class) = (tokens(5, 3, 6)?, tokens(2, 3, 6)?);
    let part = |from: usize, n: usize| -> Result<(Tensor, Targets)> {
        let cut = |t: &Tensor| -> Result<Tensor> { Ok(t.narrow(0, from, n)?.contiguous()?) };
        Ok((cut(&x)?, Targets::Classes { class: cut(&class)?, weight: cut(&weight)? }))
    };
    for model in models() {
        let new = |streams, accumulate| {
            let train = BpttConfig { accumulate: size(accumulate), ..training(1e-2) };
            build(&model, io(streams, 6), train, 3, &Device::Cpu)
        };
        let (mut whole, mut parts) = (new(3, 1)?, new(1, 3)?);
        for round in 0..3 {
            let (x, y) = part(0, 3)?;
            whole.reset(&[true; 3])?;
            whole.predict(&x)?;
            let expected = whole.learn(&y)?;
            for i in 0..3 {
                let (x, y) = part(i, 1)?;
                parts.reset(&[true])?;
                parts.predict(&x)?;
                let got = parts.learn(&y)?;
                assert_eq!(got.update_norm > 0.0, i == 2, "{model:?}: an update after the third segment only");
                if i == 2 {
                    // sums in another order; from the first round on AdamW divides gradients by their own size
                    let error = (got.grad_norm - expected.grad_norm).abs() / expected.grad_norm;
                    let bar = if matches!(model, ModelConfig::Snn(_)) && round > 0 { 0.2 } else { 1e-3 };
                    assert!(error < bar, "{model:?}, round {round}: {} {}", got.grad_norm, expected.grad_norm);
                }
                if (round, i) == (1, 1) {
                    let saved = parts.save()?;
                    parts = new(1, 3)?;
                    parts.load(&saved)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn frames_and_labels_are_learned_too() -> Result<()> {
    for model in models() {
        let io = Io { input: InputKind::Frames { width: 5 }, outputs: 3, streams: 4, segment: 10 };
        let mut l = build(&model, io, training(1e-2), 3, &Device::Cpu)?;
        let x = normal("frames", &[4, 10, 5])?;
        let label = Tensor::new(&[[1f32, 0., 1.], [0., 0., 1.], [1., 1., 0.], [0., 1., 0.]], &Device::Cpu)?;
        let y = Targets::Labels { label, weight: Tensor::ones((4, 10), DType::F32, &Device::Cpu)? };
        let mut last = f64::MAX;
        for _ in 0..200 {
            l.reset(&[true; 4])?;
            l.predict(&x)?;
            last = l.learn(&y)?.loss.unwrap_or(f64::MAX);
        }
        assert!(last < 0.05, "{model:?}: {last}");
    }
    Ok(())
}

/// Transcripts without times, of utterances of which one ends in padding.
#[test]
fn transcripts_are_learned_too() -> Result<()> {
    for model in models() {
        let io = Io { input: InputKind::Frames { width: 5 }, outputs: 4, streams: 3, segment: 12 };
        // the steps that make a spiking network remember an order are small and many
        let (rate, updates) = if matches!(model, ModelConfig::Snn(_)) { (5e-3, 1500) } else { (1e-2, 400) };
        let mut l = build(&model, io, training(rate), 3, &Device::Cpu)?;
        let x = normal("utterances", &[3, 12, 5])?;
        let steps = vec![12, 7, 12];
        let there = steps.iter().flat_map(|&n| (0..12).map(move |t| f32::from(u8::from(t < n)))).collect();
        let weight = Tensor::from_vec(there, (3, 12), &Device::Cpu)?;
        let transcripts = Transcripts { labels: vec![vec![1, 2, 3], vec![2], vec![3, 3, 1, 2]], steps, blank: 0 };
        let y = Targets::Transcripts { transcripts, weight };
        let mut best = f64::MAX;
        for _ in 0..updates {
            l.reset(&[true; 3])?;
            l.predict(&x)?;
            best = best.min(l.learn(&y)?.loss.unwrap_or(f64::MAX));
        }
        assert!(best < 0.03, "{model:?}: {best}");
    }
    Ok(())
}

/// What follows a stream's last step, with no weight on it, leaves losses, gradients and outputs as they are without it.
#[test]
fn padding_behind_a_stream_changes_nothing() -> Result<()> {
    for model in models() {
        let learned = |steps: usize, filler: f64| -> Result<(Tensor, f64, f64)> {
            let io = Io { input: InputKind::Frames { width: 5 }, outputs: 3, streams: 2, segment: 70 };
            let mut l = build(&model, io, training(1e-2), 3, &Device::Cpu)?;
            let there = normal("frames", &[2, 33, 5])?;
            let behind = normal("behind", &[2, steps - 33, 5])?.affine(filler, 0.0)?;
            let outputs = l.predict(&Tensor::cat(&[&there, &behind], 1)?)?.narrow(1, 0, 33)?;
            let weight = (0..2 * steps).map(|i| f32::from(u8::from(i % steps < 33))).collect();
            let weight = Tensor::from_vec(weight, (2, steps), &Device::Cpu)?;
            let label = Tensor::new(&[[1f32, 0., 1.], [0., 0., 1.]], &Device::Cpu)?;
            let update = l.learn(&Targets::Labels { label, weight })?;
            Ok((outputs, update.loss.unwrap_or(f64::NAN), update.grad_norm))
        };
        let want = learned(33, 0.0)?;
        for (steps, filler) in [(34, 0.0), (70, 0.0), (70, 3.0)] {
            let got = learned(steps, filler)?;
            // products over another number of rows may round differently
            assert!(distance(&want.0, &got.0)? < 1e-5, "{model:?} {steps}");
            assert!((got.1 / want.1 - 1.0).abs() < 1e-5, "{model:?} {steps}: {} {}", got.1, want.1);
            assert!((got.2 / want.2 - 1.0).abs() < 1e-4, "{model:?} {steps}: {} {}", got.2, want.2);
        }
    }
    Ok(())
}

/// Outputs of two segments in a row from a fresh start.
fn two_segments(l: &mut dyn Predictor, streams: usize, first: &Tensor, second: &Tensor) -> Result<(Tensor, Tensor)> {
    l.reset(&vec![true; streams])?;
    Ok((l.predict(first)?, l.predict(second)?))
}

#[test]
fn no_output_depends_on_a_later_input_and_all_on_earlier_ones() -> Result<()> {
    for model in models() {
        let mut l = learner(&model, io(1, 8))?;
        let (a, b) = (tokens(1, 1, 8)?, tokens(2, 1, 8)?);
        let base = two_segments(&mut *l, 1, &a, &b)?;
        let mut reached = !matches!(model, ModelConfig::Snn(_));
        for t in 0..16 {
            let mut ids = Tensor::cat(&[&a, &b], 1)?.to_vec2::<u32>()?.remove(0);
            ids[t] = (ids[t] + 1) % VOCABULARY as u32;
            let changed = Tensor::from_vec(ids, (1, 16), &Device::Cpu)?;
            let (c, d) = (changed.narrow(1, 0, 8)?.contiguous()?, changed.narrow(1, 8, 8)?.contiguous()?);
            let got = two_segments(&mut *l, 1, &c, &d)?;
            let (before, after) = (Tensor::cat(&[&base.0, &base.1], 1)?, Tensor::cat(&[&got.0, &got.1], 1)?);
            assert_eq!(
                bits(&before.narrow(1, 0, t)?)?,
                bits(&after.narrow(1, 0, t)?)?,
                "{model:?}: step {t} reached back"
            );
            if matches!(model, ModelConfig::Snn(_)) {
                // a membrane below its threshold tells nobody
                reached |= distance(&base.1, &got.1)? > 0.0;
                continue;
            }
            for later in t..16 {
                assert!(
                    distance(&before.i((0, later))?, &after.i((0, later))?)? > 0.0,
                    "{model:?}: {t} never reached {later}"
                );
            }
        }
        assert!(reached, "{model:?}: no input reached any output");
    }
    Ok(())
}

#[test]
fn streams_do_not_touch_each_other() -> Result<()> {
    for model in models() {
        let mut many = learner(&model, io(5, 8))?;
        let mut one = learner(&model, io(1, 8))?;
        let (a, b) = (tokens(1, 5, 8)?, tokens(2, 5, 8)?);
        let together = two_segments(&mut *many, 5, &a, &b)?;
        for s in 0..5 {
            let alone = two_segments(&mut *one, 1, &a.narrow(0, s, 1)?, &b.narrow(0, s, 1)?)?;
            // products over another number of rows may round differently
            assert!(distance(&together.0.narrow(0, s, 1)?, &alone.0)? < 1e-5);
            assert!(distance(&together.1.narrow(0, s, 1)?, &alone.1)? < 1e-5);
        }
    }
    Ok(())
}

#[test]
fn a_reset_stream_is_a_fresh_one_and_the_others_go_on() -> Result<()> {
    for model in models() {
        let (a, b) = (tokens(1, 3, 8)?, tokens(2, 3, 8)?);
        let mut l = learner(&model, io(3, 8))?;
        let fresh = l.predict(&b)?;
        let (_, continued) = two_segments(&mut *l, 3, &a, &b)?;
        l.reset(&[true; 3])?;
        l.predict(&a)?;
        l.reset(&[false, true, false])?;
        let mixed = l.predict(&b)?;
        for (s, expected) in [(0, &continued), (1, &fresh), (2, &continued)] {
            assert_eq!(bits(&mixed.i(s)?)?, bits(&expected.i(s)?)?, "{model:?}: stream {s}");
        }
        assert!(distance(&fresh.i(0)?, &continued.i(0)?)? > 1e-3, "{model:?}: nothing was carried");
    }
    Ok(())
}

#[test]
fn two_segments_are_one_of_twice_the_length() -> Result<()> {
    for model in models() {
        // the Transformer's memory covers the first segment; 70 is more than one block of attention
        for k in [5, 70] {
            let x = tokens(1, 2, 2 * k)?;
            let whole = learner(&model, io(2, 2 * k))?.predict(&x)?;
            let mut halves = learner(&model, io(2, k))?;
            let (a, b) = two_segments(&mut *halves, 2, &x.narrow(1, 0, k)?, &x.narrow(1, k, k)?)?;
            // positions differ by a constant, which rotary angles see only through rounding
            assert!(distance(&whole, &Tensor::cat(&[&a, &b], 1)?)? < 2e-5, "{model:?}");
        }
    }
    Ok(())
}

#[test]
fn a_shorter_segment_leaves_the_same_state() -> Result<()> {
    for model in models() {
        let x = tokens(1, 2, 12)?;
        let mut l = learner(&model, io(2, 6))?;
        let (_, want) = two_segments(&mut *l, 2, &x.narrow(1, 0, 6)?, &x.narrow(1, 6, 6)?)?;
        l.reset(&[true, true])?;
        let got: Vec<Tensor> = [(0, 4), (4, 2), (6, 1), (7, 5)]
            .iter()
            .map(|&(at, n)| l.predict(&x.narrow(1, at, n)?))
            .collect::<Result<_>>()?;
        // the Transformer remembers 6 steps before each segment, so the pieces see at least what the segment saw
        if matches!(model, ModelConfig::Transformer(_)) {
            assert!(distance(&want.narrow(1, 0, 1)?, &got[2])? < 1e-5);
        } else {
            assert!(distance(&want, &Tensor::cat(&[&got[2], &got[3]], 1)?)? < 1e-5);
        }
    }
    Ok(())
}

/// A stream that is read step by step, as it arrives: what its segments give. Attention, which sees as many steps before a step
/// as before a segment, is left out.
#[test]
fn steps_of_a_long_stream_give_what_its_segments_give() -> Result<()> {
    for model in models().into_iter().filter(|m| !matches!(m, ModelConfig::Transformer(_))) {
        let (x, mut l) = (tokens(1, 2, 320)?, learner(&model, io(2, 80))?);
        let mut read = |each: usize| -> Result<Tensor> {
            l.reset(&[true, true])?;
            let pieces = (0..320).step_by(each).map(|at| l.predict(&x.narrow(1, at, each)?));
            Ok(Tensor::cat(&pieces.collect::<Result<Vec<_>>>()?, 1)?)
        };
        let (segments, steps) = (read(80)?, read(1)?);
        // products over another number of rows may round differently, and states carry that on
        assert!(distance(&segments, &steps)? < 2e-5, "{model:?}: {}", distance(&segments, &steps)?);
    }
    Ok(())
}

fn train(l: &mut dyn Learner, from: usize, updates: usize) -> Result<Vec<(u64, u64)>> {
    (from..from + updates)
        .map(|i| {
            l.reset(&[i % 3 == 0, i % 4 == 0])?;
            l.predict(&tokens(i, 2, 8)?)?;
            let u = l.learn(&classes(&tokens(i + 1, 2, 8)?)?)?;
            Ok((u.loss.unwrap_or(f64::NAN).to_bits(), u.update_norm.to_bits()))
        })
        .collect()
}

/// Learners share the threads of the pool; one that waits there for a part of one learner's work may begin another learner's.
#[test]
fn learners_side_by_side_learn_what_they_learn_alone() -> Result<()> {
    for model in models() {
        let run = || {
            let mut learner = build(&model, io(2, 8), training(1e-2), 3, &Device::Cpu)?;
            let losses = train(&mut *learner, 0, 8)?;
            learner.predict(&tokens(1, 2, 8)?)?;
            Ok((losses, learner.learn(&classes(&tokens(2, 2, 8)?)?)?.operations))
        };
        let alone: Result<_> = run();
        let alone = alone?;
        let together = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(run)).collect();
            threads.into_iter().map(|t| t.join().expect("no panic")).collect::<Result<Vec<_>>>()
        })?;
        assert!(together.iter().all(|t| *t == alone), "{model:?}");
    }
    Ok(())
}

#[test]
fn going_on_from_a_snapshot_is_going_on() -> Result<()> {
    for model in models() {
        let new = |seed| build(&model, io(2, 8), training(1e-2), seed, &Device::Cpu);
        let mut straight = new(3)?;
        train(&mut *straight, 0, 7)?;
        let saved = straight.save()?;
        let want = train(&mut *straight, 7, 6)?;

        let mut other = new(4)?;
        train(&mut *other, 5, 2)?; // moments and state of its own, to be overwritten
        other.load(&saved)?;
        assert_eq!(train(&mut *other, 7, 6)?, want, "{model:?}");
        other.load(&saved)?; // the snapshot itself was not trained on
        assert_eq!(train(&mut *other, 7, 6)?, want, "{model:?}");

        let dir = std::env::temp_dir().join(format!("baselines-{}-{}", std::process::id(), saved.state.len()));
        std::fs::create_dir_all(&dir).expect("a folder");
        saved.write(&dir)?;
        let mut third = new(5)?;
        third.load(&learner::Snapshot::read(&dir)?)?;
        std::fs::remove_dir_all(&dir).expect("the folder");
        assert_eq!(train(&mut *third, 7, 6)?, want, "{model:?} through files");
    }
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_numbers_on_any_number_of_threads() -> Result<()> {
    for model in models() {
        let run = |threads: usize, seed: u64| -> Result<Vec<(u64, u64)>> {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| train(&mut *build(&model, io(2, 8), training(1e-2), seed, &Device::Cpu)?, 0, 8))
        };
        assert_eq!(run(1, 3)?, run(2, 3)?);
        assert_ne!(run(1, 3)?, run(1, 4)?);
    }
    Ok(())
}

#[test]
fn an_evaluator_follows_training_and_leaves_it_alone() -> Result<()> {
    for model in models() {
        let new = || build(&model, io(2, 8), training(1e-2), 3, &Device::Cpu);
        let (mut plain, mut watched) = (new()?, new()?);
        let mut evaluator = watched.evaluator(3)?;
        let x = tokens(9, 3, 8)?;
        assert_eq!(train(&mut *plain, 0, 4)?, {
            let first = train(&mut *watched, 0, 2)?;
            evaluator.predict(&x)?;
            [first, train(&mut *watched, 2, 2)?].concat()
        });
        evaluator.reset(&[true; 3])?;
        let got = evaluator.predict(&x)?;
        assert_eq!(bits(&got)?, bits(&watched.evaluator(3)?.predict(&x)?)?, "an old evaluator sees new weights");
        let mut trainer = build(&model, io(3, 8), training(1e-2), 8, &Device::Cpu)?;
        let mut weights = trainer.save()?;
        weights.weights = watched.save()?.weights;
        trainer.load(&weights)?;
        assert_eq!(bits(&got)?, bits(&trainer.predict(&x)?)?, "evaluation is prediction");
    }
    Ok(())
}

#[test]
fn steps_without_weight_teach_nothing_and_count_as_no_update() -> Result<()> {
    for model in models() {
        let mut l = build(&model, io(2, 8), training(1e-2), 3, &Device::Cpu)?;
        let before = l.save()?;
        l.predict(&tokens(1, 2, 8)?)?;
        let weight = Tensor::zeros((2, 8), DType::F32, &Device::Cpu)?;
        let update = l.learn(&Targets::Classes { class: tokens(2, 2, 8)?, weight })?;
        assert_eq!((update.loss, update.grad_norm, update.update_norm), (None, 0.0, 0.0));
        let after = l.save()?;
        assert_eq!(after.counters, before.counters);
        for (name, w) in &before.weights {
            assert_eq!(bits(w)?, bits(&after.weights[name])?, "{name}");
        }
    }
    Ok(())
}

#[test]
fn clipping_bounds_the_gradient_and_reports_its_norm_from_before() -> Result<()> {
    // with β1 = β2 = 0 and a large ε the update is the clipped gradient times rate / ε
    for model in models() {
        let mut config: BpttConfig = training(1e-3);
        config.adamw = learner::AdamWConfig { beta1: 0.0, beta2: 0.0, epsilon: 1.0, weight_decay: 0.0 };
        config.schedule.warmup_updates = 0;
        config.clip = 0.01;
        let mut l = build(&model, io(2, 8), config, 3, &Device::Cpu)?;
        l.predict(&tokens(1, 2, 8)?)?;
        let u = l.learn(&classes(&tokens(2, 2, 8)?)?)?;
        assert!(u.grad_norm > 0.01, "{}", u.grad_norm);
        // what ε leaves of the clipped gradient's own size, 1 %, and steps near the f32 spacing of weights
        assert!((u.update_norm / (0.01 * 1e-3) - 1.0).abs() < 0.05, "{}", u.update_norm);
    }
    Ok(())
}

#[test]
fn divergence_is_an_error_that_says_what_and_when() -> Result<()> {
    for model in models() {
        let mut l = build(&model, io(2, 8), training(1e-2), 3, &Device::Cpu)?;
        train(&mut *l, 0, 3)?;
        let mut broken = l.save()?;
        let nan = (&broken.weights["embedding.weight"] * f64::NAN)?;
        broken.weights.insert("embedding.weight".into(), nan);
        l.load(&broken)?;
        l.predict(&tokens(1, 2, 8)?)?;
        let error = l.learn(&classes(&tokens(2, 2, 8)?)?).expect_err("not finite");
        assert!(matches!(error, Error::Diverged { quantity: "loss", update: 3, .. }), "{model:?}: {error}");
    }
    Ok(())
}

#[test]
fn wrong_use_is_an_error() -> Result<()> {
    for model in models() {
        let mut l = build(&model, io(2, 8), training(1e-2), 3, &Device::Cpu)?;
        assert!(l.learn(&classes(&tokens(1, 2, 8)?)?).is_err(), "nothing was predicted");
        for (b, k) in [(2, 9), (3, 8), (1, 8)] {
            let error = l.predict(&tokens(1, b, k)?).expect_err("shape").to_string();
            assert!(error.contains("[2, 1 to 8]") && error.contains(&format!("[{b}, {k}]")), "{error}");
        }
        assert!(l.predict(&normal("x", &[2, 8])?).is_err(), "not tokens");
        assert!(l.reset(&[true]).is_err());
        let mut zero_clip = training(1e-2);
        zero_clip.clip = 0.0;
        assert!(build(&model, io(2, 8), zero_clip, 3, &Device::Cpu).is_err());
        assert!(build(&model, io(0, 8), training(1e-2), 3, &Device::Cpu).is_err());
    }
    let odd = TransformerConfig { width: size(10), ..TransformerConfig::default() };
    let error =
        build(&ModelConfig::Transformer(odd), io(1, 4), training(1e-2), 3, &Device::Cpu).err().map(|e| e.to_string());
    assert!(error.as_deref().is_some_and(|e| e.starts_with("heads: ")), "{error:?}");
    Ok(())
}

#[test]
fn sizes_are_counted() -> Result<()> {
    let lstm = ModelConfig::Lstm(LstmConfig { width: size(20), layers: size(2), ..LstmConfig::default() });
    let l = build(&lstm, io(3, 8), training(1e-2), 3, &Device::Cpu)?;
    let v = VOCABULARY as u64;
    assert_eq!(l.cost().parameters, v * 20 + 2 * (40 * 80 + 80) + 20 * v + v);
    assert_eq!(l.cost().state_bytes, 2 * 2 * 3 * 20 * 4);
    let snapshot = l.save()?;
    for name in ["layers.1.weight", "output.weight"] {
        let largest = snapshot.weights[name].abs()?.max_all()?.to_scalar::<f32>()?;
        assert!((0.9..=1.0).contains(&(largest * 20f32.sqrt())), "{name} starts as in torch: {largest}");
    }
    let count = |model: ModelConfig| Ok::<_, Error>(build(&model, io(3, 8), training(1e-2), 3, &Device::Cpu)?.cost());
    for (cell, columns, sums) in [(Cell::Gru, 3, 4), (Cell::Vanilla, 1, 1)] {
        let cost = count(ModelConfig::Rnn(RnnConfig { cell, width: size(20), layers: size(2), residual: true }))?;
        assert_eq!(cost.parameters, v * 20 + 2 * (40 * 20 * columns + 20 * sums) + 20 * v + v, "{cell:?}");
        assert_eq!(cost.state_bytes, 2 * 3 * 20 * 4);
    }
    let cnn = CnnConfig { width: size(20), layers: Some(size(2)), kernel: Some(size(4)), ..CnnConfig::default() };
    let cost = count(ModelConfig::Cnn(cnn))?;
    assert_eq!(cost.parameters, v * 20 + 2 * 2 * (4 * 20 * 20 + 20) + 20 * v + v);
    assert_eq!(cost.state_bytes, 3 * 20 * 4 * (2 * 3 + 2 * 6), "three steps before each convolution, then six");
    Ok(())
}

#[test]
fn sizes_and_the_start_of_mamba_are_those_of_its_paper() -> Result<()> {
    let config = MambaConfig { width: size(24), layers: size(2), ..MambaConfig::default() };
    let l = build(&ModelConfig::Mamba(config), io(3, 8), training(1e-2), 3, &Device::Cpu)?;
    let (v, d, h, n, r, w) = (VOCABULARY as u64, 24, 48, 16, 2, 4);
    let block = d * 2 * h + w * h + h + h * (r + 2 * n) + r * h + h + h * n + h + h * d;
    assert_eq!(l.cost().parameters, v * d + 2 * block + d * v + v);
    assert_eq!(l.cost().state_bytes, 2 * 3 * (h * n + h * (w - 1)) * 4);
    let weights = l.save()?.weights;
    let decays = weights["layers.1.log_decay"].exp()?.to_vec2::<f32>()?;
    assert!(decays.iter().flatten().zip((1..=16).cycle()).all(|(a, n)| (a / n as f32 - 1.0).abs() < 1e-6));
    let steps = (weights["layers.1.step.bias"].exp()? + 1.0)?.log()?.to_vec1::<f32>()?;
    assert!(steps.iter().all(|s| (0.99e-3..0.101).contains(s)), "{steps:?}"); // rounding near the ends
    let small = steps.iter().filter(|s| **s < 1e-2).count();
    assert!((22..=26).contains(&small), "half of them in the lower decade: {small} of 48");
    Ok(())
}

#[test]
fn weight_decay_leaves_the_decays_of_mamba_alone() -> Result<()> {
    // no gradient reaches a block through output weights of zero, so that all that moves it is weight decay
    let mut config = training(1e-2);
    config.adamw.weight_decay = 1.0;
    config.schedule.warmup_updates = 0;
    let model = ModelConfig::Mamba(MambaConfig { width: size(8), layers: size(1), ..MambaConfig::default() });
    let mut l = build(&model, io(2, 8), config, 3, &Device::Cpu)?;
    zero_output(&mut *l)?;
    let before = l.save()?.weights;
    train(&mut *l, 0, 1)?;
    let after = l.save()?.weights;
    let moved = |name: &str| distance(&before[name], &after[name]);
    assert!(moved("layers.0.select.weight")? > 1e-4);
    assert_eq!(bits(&before["layers.0.log_decay"])?, bits(&after["layers.0.log_decay"])?);
    Ok(())
}

#[test]
fn spikes_are_counted_where_there_are_neurons_that_spike() -> Result<()> {
    for model in models() {
        let mut l = build(&model, io(2, 8), training(1e-2), 3, &Device::Cpu)?;
        let mut update = |silenced: bool| -> Result<Option<f64>> {
            if silenced {
                let mut snapshot = l.save()?;
                for (name, w) in &mut snapshot.weights {
                    if name.starts_with("layers.") {
                        *w = w.zeros_like()?;
                    }
                }
                l.load(&snapshot)?;
                l.reset(&[true, true])?;
            }
            l.predict(&tokens(1, 2, 8)?)?;
            Ok(l.learn(&classes(&tokens(2, 2, 8)?)?)?.activity.spike_sparsity)
        };
        let (active, silent) = (update(false)?, update(true)?);
        if matches!(model, ModelConfig::Snn(_)) {
            assert!(active.is_some_and(|s| (0.4..0.99).contains(&s)), "{active:?}");
            assert_eq!(silent.map(f64::to_bits), Some(1f64.to_bits()), "nobody is driven: nobody fires");
        } else {
            assert_eq!((active, silent), (None, None));
        }
    }
    Ok(())
}
