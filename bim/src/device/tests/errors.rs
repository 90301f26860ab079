//! Deliberate errors in the kernels' texts, each of which training over the whole network must notice.

use std::sync::Arc;

use learner::{Io, Result};
use standins::Kernels;

use super::{OnHost, SEGMENT, Source, clipped_pair, compare, firing, kernels, machine, path, small, tokens};
use crate::config::{
    BimConfig, Bounds, Count, Credit, DecayForm, Levels, NeuronConfig, NonNegative, Positive, PruneConfig,
    ReadoutConfig, Share, StdpConfig, Step,
};
use Source::{Encode, Membrane, Network, Plasticity, Readout, Scan, Trace, TraceCredit, Update};

/// What training over the whole network notices of a kernel that is wrong, in the sources that have no test of their own; the others are
/// in `tests/cuda_kernels`.
#[test]
#[allow(clippy::too_many_lines, reason = "a list")]
fn cuda_kernels_errors_are_noticed() -> Result<()> {
    if machine().is_none() {
        return Ok(());
    }
    let (pre, post) = (firing(), firing());
    let learned = NeuronConfig { step: Step::Learned, ..firing() };
    let readout = ReadoutConfig { levels: Levels::Integer, threshold: Positive(0.5), ..ReadoutConfig::default() };
    let readout = ReadoutConfig { penalty: NonNegative(0.1), step: Step::Learned, ..readout };
    let plain = BimConfig { pre, post, ..small() };
    let stepped = BimConfig { pre: learned, post: learned, readout, ..small() };
    // other exponentials would tip spikes now and then
    let none = NeuronConfig::none();
    let per_state = BimConfig { decay: DecayForm::ChannelState, pre: none, post: none, ..plain.clone() };
    let slow = BimConfig { post: NeuronConfig { beta: Share(0.6), ..none }, ..plain.clone() };
    let attached = NeuronConfig { attached_reset: true, beta: Share(0.6), ..post };
    let attached = BimConfig { post: attached, currents: true, ..plain.clone() };
    let quiet = NeuronConfig { beta: Share(0.9), ..none };
    let slow_heads = BimConfig { post: quiet, currents: true, ..plain.clone() };
    let slow_states = BimConfig { decay: DecayForm::ChannelState, pre: none, post: quiet, ..plain.clone() };
    let truncated = BimConfig { credit: Credit::Tbptt, ..plain.clone() };
    let prune =
        PruneConfig { target: Share(0.4), start: 1, interval: Count(1), hazard: Share(0.9), ..PruneConfig::default() };
    let mixed = BimConfig { lambda: Share(0.7), prune, ..plain.clone() };
    let bounded = |bounds, limit| BimConfig {
        stdp: StdpConfig { bounds, limit: Positive(limit), ..StdpConfig::default() },
        ..mixed.clone()
    };
    let (soft, hard) = (bounded(Bounds::Soft, 2.0), bounded(Bounds::Hard, 1.2));
    let population = BimConfig { population: Count(2), currents: true, ..mixed.clone() };
    let shuffled = BimConfig { stdp: StdpConfig { shuffled: true, ..StdpConfig::default() }, ..mixed.clone() };
    let errors = [
        (Network, "table[size_t(token) * width + i] : nanf", "table[i] : nanf", &plain),
        (Network, "== token) sum += dx[size_t(row) * width + i];", "== token) sum += dx[i];", &plain),
        (Network, "to[(n * outer + o) * width", "to[(o * inner + n) * width", &plain),
        (Network, "to[i] = row[i % width];", "to[i] = row[0];", &plain),
        (Network, "if (i < count) to[i] = value;", "if (i < count) to[i] += value;", &plain),
        (Network, "if (i < count) to[i] = from[i];", "if (i < count) to[i] = 0.0f;", &truncated),
        (Network, "to[c] += sum;", "to[c] = sum;", &plain),
        (Network, "size_t(c) * per + i % per];", "size_t(c) * per];", &plain),
        (Network, "v[size_t(r + steps) * wide + i];", "v[size_t(r) * wide + i];", &plain),
        (
            Network,
            "r < kept; ++r) v[size_t(r) * len + i] = v[size_t(r + steps)",
            "r < kept; ++r) v[size_t(r) * len + i] = v[size_t(r)",
            &slow,
        ),
        (Network, "v[size_t(r) * len + i] = v[size_t(lag) * len + i];", "v[size_t(r) * len + i] = v[i];", &plain),
        (Network, "if (marks[blockIdx.y])", "if (marks[0])", &plain),
        (Network, "__fadd_rn(z[i], bias[h])", "z[i]", &plain),
        (Network, "expf(__fmul_rn(-size, expf(a_log[h])))", "expf(-size)", &plain),
        (Network, "= skip[i];", "= 1.0f;", &plain),
        (Network, "= expf(a_log[i]);", "= a_log[i];", &per_state),
        (Network, "s[i] < 0.0f ? -price : 0.0f", "s[i] < 0.0f ? price : 0.0f", &plain),
        (Readout, "Neuron(constants, i % width).fire(v) : v", "v : v", &stepped),
        (Readout, "sum = fmaf(back, normed[at], sum);", "sum += back;", &plain),
        (Readout, "d[at] = back * gain[i];", "d[at] = back;", &plain),
        (Readout, "const float priced = back + price", "const float priced = back - price", &stepped),
        (Readout, "step_sum += back * spike - priced", "step_sum += back * spike + priced", &stepped),
        (Readout, "sum += wanted[at] * spike - priced", "sum += wanted[at] * spike + priced", &stepped),
        (Readout, "to[i] = expf(from[i]);", "to[i] = from[i];", &stepped),
        (Readout, "steps[(i / width) % parts * width + i % width]", "steps[i % width]", &stepped),
        (Encode, "reset = c[12] * threshold;", "", &stepped),
        (Scan, "reset = c[12] * threshold;", "", &stepped),
        (Trace, "(size_t(d / per) * states + k) * per + d % per] = from[i];", "i % layer] = from[i];", &per_state),
        (TraceCredit, "(size_t(b) * heads + head) * states + k;", "size_t(b) * heads * states + k;", &plain),
        (TraceCredit, "channels + d : (size_t(b) * heads", "channels : (size_t(b) * heads", &per_state),
        (TraceCredit, ": size_t(b) * channels + d;", ": size_t(b) * channels;", &plain),
        (TraceCredit, "channels + d : size_t(b)", "channels : size_t(b)", &per_state),
        (TraceCredit, "product[i] = lambda[i] * trace[i];", "product[i] = lambda[i];", &plain),
        (Update, "sum += double(v[i]) * double(v[i]);", "sum += double(v[i]);", &plain),
        (Update, "if (threadIdx.x == 0) *sum = part;", "if (threadIdx.x == 0) *sum = values[0];", &plain),
        (Update, "const float gi = __fmul_rn(g[i], scale);", "const float gi = g[i];", &plain),
        (Update, "__fmul_rn(__fmul_rn(1.0f - beta2, gi), gi)", "__fmul_rn(1.0f - beta2, gi)", &plain),
        (Update, "__fmul_rn(keep, old)", "old", &plain),
        (Update, "squares += by * by;", "squares += by;", &plain),
        (Update, "if (i < count) v[i] *= mask[i];", "", &mixed),
        (Update, "living += w[i] != 0.0f ? 1.0 : 0.0;", "living += 1.0;", &mixed),
        (Update, "__fsub_rn(1.0f, __fmul_rn(x, x))", "1.0f", &mixed),
        (Update, "(1.0f - x) / 2.0f", "(1.0f + x) / 2.0f", &soft),
        (Update, "w[i] = fminf(fmaxf(w[i], -furthest), furthest);", "", &hard),
        (Plasticity, "sum += c % 2 == 0 ? s : -s;", "sum += s;", &population),
        (Plasticity, "size_t(order[size_t(b) * steps + t])", "size_t(t)", &shuffled),
        (Membrane, "wanted * size * u;", "wanted * u;", &attached),
        (Membrane, "s_c[to * layer + cell + d] = dy *", "s_c[to * layer + cell + d] =", &attached),
        (Membrane, "dy * skips[d] + size * through_input;", "size * through_input;", &attached),
        (Membrane, "(u * through_input - through_decay) *", "(u * through_input) *", &attached),
        (Membrane, "left *= neuron.carry(v[row * channels + d]);", "left *= neuron.beta;", &attached),
        (Membrane, "of_a_log -= size * decayed;", "of_a_log += size * decayed;", &attached),
        (
            Membrane,
            "r_states[of_stream + cell] -= size * decayed;",
            "r_states[of_stream + cell] += size * decayed;",
            &slow_states,
        ),
        (Membrane, "bias[at] = left * bias[at] + of_bias;", "bias[at] = of_bias;", &slow_heads),
        (Membrane, "skip[at] = left * skip[at] + of_skip;", "skip[at] = of_skip;", &slow_heads),
        (Membrane, "current[at] = left * current[at] + of_current;", "current[at] = of_current;", &slow_heads),
        (
            Membrane,
            "sum = fmaf(g[in_state], from[row * columns + j], sum);",
            "sum += from[row * columns + j];",
            &attached,
        ),
        (
            Membrane,
            "fmaf(g[cell], from[at * columns + j], trace[cell * columns + j])",
            "trace[cell * columns + j]",
            &attached,
        ),
        (Membrane, "channels + row * per + i;", "channels + row * per;", &attached),
        (Membrane, "lambda[size_t(b) * channels + d], trace", "lambda[size_t(b) * channels], trace", &attached),
        (Membrane, "lambda[size_t(b) * channels + cell % channels]", "lambda[size_t(b) * channels]", &slow_states),
    ];
    // a gradient whose norm is clipped, since one error is in that
    let apart = |config: &BimConfig, kernels| -> Result<_> {
        let machine = OnHost::new(kernels);
        // of a slow membrane the history is longer than a chunk
        let io = Io { segment: if config.post.beta.0 > 0.1 { 8 } else { SEGMENT }, ..tokens() };
        let (mut host, mut device) = clipped_pair(config, io, &machine, 0.4)?;
        Ok(compare(&mut host, &mut device, &io, 0..7))
    };
    for config in [
        &attached,
        &slow_heads,
        &slow_states,
        &plain,
        &slow,
        &stepped,
        &per_state,
        &truncated,
        &mixed,
        &soft,
        &hard,
        &population,
        &shuffled,
    ] {
        apart(config, kernels().clone())?.unwrap_or_else(|e| panic!("without an error: {config:?}: {e}"));
    }
    let mut unnoticed = Vec::new();
    for (source, from, to, config) in errors {
        let file =
            Source::FILES.iter().find_map(|(s, file)| (*s == source).then_some(*file)).expect("every source has one");
        let wrong = Kernels::build_with(&path(file), &[(from, to)]).unwrap_or_else(|e| panic!("{e}"));
        let mut all = (**kernels()).clone();
        all.insert(source, Arc::new(wrong));
        match apart(config, Arc::new(all))? {
            Ok(found) => unnoticed.push(format!("{to:?} for {from:?}: {:.1e} apart", found.furthest)),
            Err(found) => println!("{to:?} for {from:?}: {}", found.chars().take(100).collect::<String>()),
        }
    }
    assert!(unnoticed.is_empty(), "nothing notices {unnoticed:#?}");
    Ok(())
}
