use candle_core::Tensor;
use learner::{Learner, OpCounts, Update};

use super::*;
use crate::Bim;
use crate::config::{Count, Credit, Front, Levels, NonNegative, Positive, PruneConfig, ReadoutConfig, Share, Step};
use crate::fixture::{SEGMENT, STREAMS, VOCABULARY, assert_same_weights, interrupted, learn_from, small};

fn config(target: f64) -> BimConfig {
    let neuron = NeuronConfig { threshold: Positive(0.3), ..NeuronConfig::default() };
    let readout = ReadoutConfig { levels: Levels::Integer, threshold: Positive(0.3), ..ReadoutConfig::default() };
    BimConfig { pre: neuron, post: neuron, readout, energy_target: NonNegative(target), ..small() }
}

fn bim(config: &BimConfig, rate: f64) -> Result<Bim> {
    crate::fixture::bim(config, SEGMENT, rate)
}

/// A text of which a part can be predicted: every token depends on the last two, but for one in five.
fn text(len: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = vec![1, 2];
    while tokens.len() < len {
        let i = tokens.len();
        let noise = (i * i / 3 + i / 7) as u32;
        let next = if i.is_multiple_of(5) { noise } else { 2 * tokens[i - 1] + 3 * tokens[i - 2] + 1 };
        tokens.push(next % VOCABULARY as u32);
    }
    tokens
}

fn learn(bim: &mut Bim, chunk: usize) -> Result<Update> {
    let (text, at) = (text((chunk + 2) * SEGMENT + 100), chunk * SEGMENT);
    let of = |shift: usize| {
        let tokens = [0, 50].into_iter().flat_map(|stream| text[at + stream + shift..][..SEGMENT].to_vec());
        Tensor::from_iter(tokens, &Device::Cpu)?.reshape((STREAMS, SEGMENT))
    };
    learn_from(bim, &of(0)?, of(1)?)
}

fn prices(bim: &Bim) -> Vec<f64> {
    bim.controller.iter().flat_map(Controller::prices).map(|(_, price)| price).collect()
}

fn shares(bim: &Bim) -> Vec<f64> {
    bim.controller.iter().flat_map(|c| c.measure(&bim.network)).collect()
}

#[test]
fn a_price_follows_its_target() {
    for (price, share, want) in [
        (0.0, 0.5, 0.0),   // at the target
        (0.02, 0.5, 0.02), // at the target
        (0.0, 0.75, 0.05), // half above
        (0.02, 1.0, 0.12), // twice the target
        (0.02, 9.0, 0.12), // no faster
        (0.2, 0.25, 0.15), // half below
        (0.2, 0.0, 0.1),   // silent
        (0.02, 0.0, 0.0),  // firing is not paid for
    ] {
        let got = next_price(price, share, 0.5, 0.1);
        assert!((got - want).abs() < 1e-15, "{price} at {share}: {got} for {want}");
    }
}

/// What the controller measures is what is counted: all populations' accumulates are those of the forward pass, with bursts and with weighted
/// spikes, all synapses alive and a part of them pruned.
#[test]
fn shares_are_those_of_the_counted_accumulates() -> Result<()> {
    let prune =
        PruneConfig { target: Share(0.5), start: 2, interval: Count(2), hazard: Share(1.0), ..PruneConfig::default() };
    let weighted = |c: BimConfig| {
        let neuron = NeuronConfig { spikes: SpikeCode::Weighted, step: Step::Learned, ..c.pre };
        let readout = ReadoutConfig { spikes: SpikeCode::Weighted, ..c.readout };
        BimConfig { pre: neuron, post: neuron, readout, gate: false, delta_input: DeltaInput::Full, ..c }
    };
    for (name, c) in [
        ("bursts", config(0.3)),
        ("weighted", weighted(config(0.3))),
        ("pruned", BimConfig { prune, ..config(0.3) }),
        ("both", BimConfig { prune, ..weighted(config(0.3)) }),
    ] {
        let mut bim = bim(&c, 0.02)?;
        for chunk in 0..9 {
            let before = bim.controller.clone().expect("a target");
            let counts: OpCounts = learn(&mut bim, chunk)?.operations.expect("counted");
            let rows = (STREAMS * SEGMENT) as f64;
            let shares = before.measure(&bim.network);
            let accumulates: f64 = before.populations.iter().zip(&shares).map(|(p, s)| s * p.all as f64 * rows).sum();
            assert!(shares.len() == 5 && shares.iter().all(|s| *s > 0.0), "{name}: {shares:?}");
            assert!((accumulates - counts.forward.acs as f64).abs() < 1e-6, "{name}: {accumulates}, {counts:?}");
        }
        assert!(bim.plasticity.pruned().is_none_or(|n| n > 30), "{name}: {:?} pruned", bim.plasticity.pruned());
    }
    Ok(())
}

/// Every population ends at the target, each by a price of its own, though it began far above it.
#[test]
fn every_population_meets_the_target_on_text() -> Result<()> {
    let target = 0.3;
    let c = BimConfig { energy_rate: Positive(0.004), ..config(target) };
    let mut bim = bim(&c, 0.01)?;
    let (mut first, mut last) = (vec![0.0; 5], vec![0.0; 5]);
    let (updates, window) = (1200, 300);
    for chunk in 0..updates {
        learn(&mut bim, chunk)?;
        let sums = if chunk < 20 { &mut first } else { &mut last };
        if chunk < 20 || chunk + window >= updates {
            sums.iter_mut().zip(shares(&bim)).for_each(|(sum, share)| *sum += share);
        }
    }
    let (first, last) = (first.iter().map(|s| s / 20.0), last.iter().map(|s| s / window as f64));
    let (first, last): (Vec<f64>, Vec<f64>) = (first.collect(), last.collect());
    let all = format!("{first:.3?} → {last:.3?} at {:.4?}", prices(&bim));
    // a few populations do not fire as much as that at any price; they have none
    for ((first, last), price) in first.iter().zip(&last).zip(prices(&bim)) {
        assert!((last / target - 1.0).abs() < 0.15 || (*last < target && price == 0.0), "{all}");
        assert!(*last > 0.1 * target, "a population starves: {all}");
        assert!(price > 0.0 || first < last || *last < target, "{all}");
    }
    let priced = prices(&bim).into_iter().filter(|price| *price > 0.0).count();
    assert!(priced >= 4 && first.iter().filter(|s| **s > 1.3 * target).count() >= 3, "hardly a test: {all}");
    Ok(())
}

/// A price that the controller has set is the same price as one that a configuration has: in a chunk, over many with `reach`, in traces of the
/// front, and in the diagnostics of the gradient.
#[test]
fn a_price_is_the_penalty_of_the_same_number() -> Result<()> {
    let base = config(0.3);
    let lambda = Share(1.0);
    for c in [
        base.clone(),
        BimConfig { front: Front::Traces, ..base.clone() },
        BimConfig { credit: Credit::Tbptt, reach: 3 * SEGMENT as u64, ..base.clone() },
        BimConfig {
            diagnose: crate::config::DiagnoseConfig { every: 2, ..crate::config::DiagnoseConfig::default() },
            ..base
        },
    ] {
        let c = BimConfig { lambda, energy_rate: Positive(1e-12), ..c };
        let mut controlled = bim(&c, 0.01)?;
        let mut saved = controlled.save()?;
        let given = [0.1, 0.2, 0.1, 0.2, 0.3];
        saved.optimizer.insert(PRICES.to_owned(), Tensor::new(&given[..], &Device::Cpu)?);
        controlled.load(&saved)?;
        let mut fixed = BimConfig { energy_target: NonNegative(0.0), energy_rate: Positive(0.004), ..c.clone() };
        fixed.pre.penalty = NonNegative(0.1);
        fixed.post.penalty = NonNegative(0.2);
        fixed.readout.penalty = NonNegative(0.3);
        let mut fixed = bim(&fixed, 0.01)?;
        let mut free = bim(&BimConfig { energy_target: NonNegative(0.0), energy_rate: Positive(0.004), ..c }, 0.01)?;
        for chunk in 0..5 {
            let [a, b, without] = [&mut controlled, &mut fixed, &mut free].map(|bim| learn(bim, chunk));
            let (a, b, without) = (a?, b?, without?);
            // the prices move by 1e-12 at most
            assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-5, "{chunk}: {} {}", a.grad_norm, b.grad_norm);
            assert!((a.grad_norm / without.grad_norm - 1.0).abs() > 1e-3, "{chunk}: the test would show nothing");
            let cosines = |u: &Update| -> Vec<f64> {
                u.layers.iter().filter(|v| v.quantity.contains("bptt")).map(|v| v.value).collect()
            };
            assert_eq!(cosines(&a).len(), cosines(&b).len());
            for (a, b) in cosines(&a).into_iter().zip(cosines(&b)) {
                assert!((a - b).abs() < 1e-4, "{chunk}: {a} {b}");
            }
        }
    }
    Ok(())
}

/// A run that is interrupted goes on to the same bits, prices and weights, with synapses that are pruned meanwhile.
#[test]
fn prices_survive_a_snapshot() -> Result<()> {
    let prune = PruneConfig { target: Share(0.5), start: 1, interval: Count(3), ..PruneConfig::default() };
    let c = BimConfig { prune, energy_rate: Positive(0.01), ..config(0.3) };
    let (whole, mut second, saved) = interrupted(&c, learn, 6, 12)?;
    let bits = |bim: &Bim| prices(bim).into_iter().map(f64::to_bits).collect::<Vec<_>>();
    assert_eq!(bits(&whole), bits(&second));
    assert!(prices(&whole).iter().filter(|p| **p > 0.0).count() > 2, "{:?}", prices(&whole));
    assert_same_weights(&whole, &second)?;
    let mut short = saved;
    short.optimizer.insert(PRICES.to_owned(), Tensor::new(&[0.0f64; 2], &Device::Cpu)?);
    assert!(second.load(&short).expect_err("another shape").to_string().contains(PRICES));
    Ok(())
}

/// Without a target nothing is there: no price in a snapshot, no operation. With one, learning alone pays:
/// magnitude, product and sum of each level, and its price.
#[test]
fn a_target_is_paid_by_learning_and_off_by_default() -> Result<()> {
    let off = config(0.0);
    let (mut without, mut with) = (bim(&off, 0.01)?, bim(&config(0.25), 0.01)?);
    assert!(!without.save()?.optimizer.contains_key(PRICES));
    let [a, b] = [&mut without, &mut with].map(|bim| learn(bim, 0).map(|u| u.operations.expect("counted")));
    let (a, mut b) = (a?, b?);
    let neurons = 2 * (8 + 16) + 8;
    assert_eq!(b.reverse.elementwise - a.reverse.elementwise, 5 * (STREAMS * SEGMENT * neurons) as u64);
    b.reverse.elementwise = a.reverse.elementwise;
    assert_eq!(a, b);
    Ok(())
}

/// Every share and price has a row of diagnostics.
#[test]
fn shares_and_prices_are_reported() -> Result<()> {
    let mut bim = bim(&config(0.25), 0.01)?;
    let rows = learn(&mut bim, 0)?.layers;
    let layers = |quantity: &str| {
        rows.iter().filter(|row| row.quantity == quantity).map(|row| row.layer.clone()).collect::<Vec<_>>()
    };
    let want = ["layers.0.pre", "layers.0.post", "layers.1.pre", "layers.1.post", "readout"];
    assert_eq!(
        (layers("energy_share"), layers("price")),
        (want.map(String::from).to_vec(), want.map(String::from).to_vec())
    );
    Ok(())
}

#[test]
fn targets_that_make_no_sense_are_refused_with_their_key() {
    let refused = |key: &str, change: fn(&mut BimConfig)| {
        let mut c = config(0.25);
        change(&mut c);
        let message = c.check().expect_err(key).to_string();
        assert!(message.starts_with(&format!("{key}: ")) && message.contains("expected"), "{key}: {message}");
    };
    config(0.25).check().expect("it fits together");
    refused("pre.penalty", |c| c.pre.penalty = NonNegative(0.02));
    refused("post.penalty", |c| c.post.penalty = NonNegative(0.02));
    refused("readout.penalty", |c| c.readout.penalty = NonNegative(0.02));
    refused("energy_target", |c| c.delays = Count(2));
    refused("energy_target", |c| c.kernel = Share(0.5));
    refused("energy_target", |c| {
        (c.pre, c.post, c.readout) = (NeuronConfig::none(), NeuronConfig::none(), ReadoutConfig::default());
    });
    refused("energy_rate", |c| (c.energy_target, c.energy_rate) = (NonNegative(0.0), Positive(0.1)));
    let mut c = config(0.25);
    (c.pre, c.delays) = (NeuronConfig::none(), Count(2));
    c.check().expect("spikes arrive behind the postsynaptic neurons");
    assert_eq!(c.controlled(), [false, true, true]);
}
