//! Launches of `cuda/lif.cu`, `cuda/lstm.cu`, `cuda/rnn.cu` and `cuda/scan.cu`.

use candle_core::{D, Result, Tensor};
use learner::device::{Arg, Grid, Kernel, launch, on_graph, takes};

use super::super::{Cell, LifState, Neuron, matmul_slow};

/// Threads of a block that has a stream to itself: one per unit, up to what a block can have and the kernels' bounds say.
fn threads(width: usize) -> [usize; 2] {
    [width.next_multiple_of(32).min(1024), 1]
}

/// A block per stream.
fn per_stream(streams: usize, width: usize) -> Grid {
    Grid { blocks: [streams, 1], threads: threads(width) }
}

/// Rows of `w` of the input and of the layer's own outputs, on the graph.
fn halves(w: &Tensor, inputs: usize) -> Result<(Tensor, Tensor)> {
    Ok((w.narrow(0, 0, inputs)?, w.narrow(0, inputs, w.dim(0)? - inputs)?.contiguous()?))
}

/// `[rows, columns]` on its side.
fn turned(w: &Tensor) -> Result<Tensor> {
    w.detach().t()?.contiguous()
}

/// Gradient of recurrent weights: `yᵀ d` over all streams and steps, where `y` is what a layer `[B, K, H]` gave in the step before.
fn of_recurrent(first: &Tensor, y: &Tensor, d: &Tensor) -> Result<Tensor> {
    let (streams, steps, width) = y.dims3()?;
    let before = Tensor::cat(&[&first.unsqueeze(1)?, &y.narrow(1, 0, steps - 1)?], 1)?;
    let d = d.contiguous()?.reshape((streams * steps, d.dim(2)?))?;
    before.reshape((streams * steps, width))?.t()?.contiguous()?.matmul(&d)
}

pub(in super::super) fn lif(
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    before: &LifState,
    neuron: Neuron,
) -> Result<Option<(Tensor, LifState)>> {
    const THREADS: usize = 128;
    if !takes(x) {
        return Ok(None);
    }
    let kernel = |name| Kernel { module: "baselines_lif", ptx: ptx::BASELINES_LIF, name };
    let ((streams, steps, inputs), width) = (x.dims3()?, before.membrane.dim(1)?);
    let recurrent = w.dim(0)? > inputs;
    let (w_in, w_own) = if recurrent { halves(w, inputs)? } else { (w.clone(), w.clone()) };
    let current = matmul_slow(x, &w_in)?.broadcast_add(b)?.contiguous()?; // [B, K, H]
    let excess = current.detach().copy()?;
    let membrane = before.membrane.contiguous()?.copy()?;
    let adaptation = match &before.adaptation {
        Some(a) => a.contiguous()?.copy()?,
        None => membrane.zeros_like()?,
    };
    let (fired_before, spikes) = (membrane.zeros_like()?, excess.zeros_like()?);
    let (rho, strength) = neuron.adaptive.map_or((0.0, 0.0), |a| (a.decay, a.strength));
    // connected neurons share a block, others are spread over several
    let grid = if recurrent {
        Grid { blocks: [1, streams], threads: threads(width) }
    } else {
        Grid { blocks: [width.div_ceil(THREADS), streams], threads: [THREADS, 1] }
    };
    let sizes = [Arg::Size(steps), Arg::Size(width), Arg::F32(neuron.decay)];
    let own = if recurrent { Arg::Tensor(&w_own) } else { Arg::Null };
    let mut args = sizes.to_vec();
    args.extend([Arg::F32(neuron.threshold), Arg::F32(rho), Arg::F32(strength), own, Arg::Tensor(&excess)]);
    args.extend([&membrane, &adaptation, &fired_before, &spikes].map(Arg::Tensor));
    launch(x.device(), kernel("lif_forward"), grid, &args)?;
    let kept = (w_own.detach(), spikes.clone());
    let back = move |dy: &Tensor| {
        let (w_own, spikes) = &kept;
        let (du, da, d_current) = (fired_before.zeros_like()?, fired_before.zeros_like()?, excess.zeros_like()?);
        let w_t = if recurrent { Some(turned(w_own)?) } else { None };
        let mut args = vec![Arg::Size(steps), Arg::Size(width), Arg::F32(neuron.decay), Arg::F32(neuron.slope)];
        args.extend([Arg::F32(rho), Arg::F32(strength), w_t.as_ref().map_or(Arg::Null, Arg::Tensor)]);
        args.extend([&excess, dy, &du, &da, &d_current].map(Arg::Tensor));
        launch(dy.device(), kernel("lif_backward"), grid, &args)?;
        let d_own = if recurrent { Some(of_recurrent(&fired_before, spikes, &d_current)?) } else { None };
        Ok([Some(d_current), d_own, None])
    };
    // without connections the second operand is one that no gradient goes back to
    let second = if recurrent { w_own } else { w_own.detach() };
    let y = on_graph(&spikes, [&current, &second, &spikes.detach()], back)?;
    let adaptation = before.adaptation.is_some().then_some(adaptation);
    Ok(Some((y, LifState { membrane, adaptation })))
}

pub(in super::super) fn lstm(
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    hidden: &Tensor,
    cell: &Tensor,
) -> Result<Option<(Tensor, Tensor)>> {
    if !takes(x) {
        return Ok(None);
    }
    let kernel = |name| Kernel { module: "baselines_lstm", ptx: ptx::BASELINES_LSTM, name };
    let ((streams, steps, inputs), width) = (x.dims3()?, hidden.dim(1)?);
    let (w_in, w_hidden) = halves(w, inputs)?;
    let sums = matmul_slow(x, &w_in)?.broadcast_add(b)?.contiguous()?; // [B, K, 4H]
    let gates = sums.detach().copy()?;
    let (hidden, cell) = (hidden.detach().contiguous()?, cell.detach().contiguous()?);
    let cells = Tensor::zeros((streams, steps, width), x.dtype(), x.device())?;
    let out = cells.zeros_like()?;
    let grid = per_stream(streams, width);
    let mut args = vec![Arg::Size(steps), Arg::Size(width)];
    args.extend([&w_hidden, &hidden, &cell, &gates, &cells, &out].map(Arg::Tensor));
    launch(x.device(), kernel("lstm_forward"), grid, &args)?;
    let last = cells.narrow(1, steps - 1, 1)?.squeeze(1)?.contiguous()?;
    let (kept, y) = (w_hidden.detach(), out.clone());
    let back = move |dy: &Tensor| {
        let (dc, d_gates, w_t) = (cell.zeros_like()?, gates.zeros_like()?, turned(&kept)?);
        let mut args = vec![Arg::Size(steps), Arg::Size(width)];
        args.extend([&w_t, &cell, &gates, &cells, dy, &dc, &d_gates].map(Arg::Tensor));
        launch(dy.device(), kernel("lstm_backward"), grid, &args)?;
        let d_hidden = of_recurrent(&hidden, &y, &d_gates)?;
        Ok([Some(d_gates), Some(d_hidden), None])
    };
    Ok(Some((on_graph(&out, [&sums, &w_hidden, &out], back)?, last)))
}

pub(in super::super) fn rnn(x: &Tensor, w: &Tensor, b: &Tensor, hidden: &Tensor, cell: Cell) -> Result<Option<Tensor>> {
    if !takes(x) {
        return Ok(None);
    }
    let kernel = |name| Kernel { module: "baselines_rnn", ptx: ptx::BASELINES_RNN, name };
    let ((streams, steps, inputs), width) = (x.dims3()?, hidden.dim(1)?);
    let (w_in, w_hidden) = halves(w, inputs)?;
    let hidden = hidden.detach().contiguous()?;
    let grid = per_stream(streams, width);
    let sizes = [Arg::Size(steps), Arg::Size(width)];
    let kept = w_hidden.detach();
    match cell {
        Cell::Vanilla => {
            let sums = matmul_slow(x, &w_in)?.broadcast_add(b)?.contiguous()?; // [B, K, H]
            let out = sums.detach().copy()?;
            let mut args = sizes.to_vec();
            args.extend([&w_hidden, &hidden, &out].map(Arg::Tensor));
            launch(x.device(), kernel("vanilla_forward"), grid, &args)?;
            let y = out.clone();
            let back = move |dy: &Tensor| {
                let (d_sums, w_t) = (y.zeros_like()?, turned(&kept)?);
                let mut args = sizes.to_vec();
                args.extend([&w_t, &y, dy, &d_sums].map(Arg::Tensor));
                launch(dy.device(), kernel("vanilla_backward"), grid, &args)?;
                let d_hidden = of_recurrent(&hidden, &y, &d_sums)?;
                Ok([Some(d_sums), Some(d_hidden), None])
            };
            on_graph(&out, [&sums, &w_hidden, &out], back).map(Some)
        }
        Cell::Gru => {
            let from_x = matmul_slow(x, &w_in)?.contiguous()?; // [B, K, 3H]
            let b = b.contiguous()?;
            let zeros = |columns: usize| Tensor::zeros((streams, steps, columns), x.dtype(), x.device());
            let (sums, out) = (zeros(4 * width)?, zeros(width)?);
            let mut args = sizes.to_vec();
            let products = from_x.detach();
            args.extend([&products, &w_hidden, &b, &hidden, &sums, &out].map(Arg::Tensor));
            launch(x.device(), kernel("gru_forward"), grid, &args)?;
            let y = out.clone();
            let back = move |dy: &Tensor| {
                let (dh, d_sums, w_t) = (hidden.zeros_like()?, sums.zeros_like()?, turned(&kept)?);
                let mut args = sizes.to_vec();
                args.extend([&w_t, &hidden, &sums, &y, dy, &dh, &d_sums].map(Arg::Tensor));
                launch(dy.device(), kernel("gru_backward"), grid, &args)?;
                let d_x = d_sums.narrow(D::Minus1, 0, 3 * width)?.contiguous()?;
                let d_hidden = of_recurrent(&hidden, &y, &d_sums.narrow(D::Minus1, width, 3 * width)?)?;
                Ok([Some(d_x), Some(d_hidden), Some(d_sums.sum((0, 1))?)])
            };
            on_graph(&out, [&from_x, &w_hidden, &b], back).map(Some)
        }
    }
}

/// The selective scan: `delta` and `u` `[B, K, H]`, `B` beside `C` `[B, K, 2N]`, `a` `[H, N]`, the state before the segment
/// `[B, H, N]` → outputs `[B, K, H]` and the state after it.
pub(in super::super) fn scan(
    delta: &Tensor,
    u: &Tensor,
    bc: &Tensor,
    a: &Tensor,
    before: &Tensor,
) -> Result<Option<(Tensor, Tensor)>> {
    /// Threads of a block: so many channels as have room with their states.
    const THREADS: usize = 256;
    /// Steps between kept states, as in the kernel.
    const BLOCK: usize = 16;
    let ((streams, steps, channels), states) = (u.dims3()?, a.dim(1)?);
    if !takes(u) || states > 32 {
        return Ok(None);
    }
    let kernel = |name| Kernel { module: "baselines_scan", ptx: ptx::BASELINES_SCAN, name };
    let du = Tensor::cat(&[delta, u], 2)?; // [B, K, 2H]
    let (bc, a) = (bc.contiguous()?, a.contiguous()?);
    let h = before.detach().contiguous()?.copy()?;
    let zeros = |dims: &[usize]| Tensor::zeros(dims, u.dtype(), u.device());
    let kept = zeros(&[streams, steps.div_ceil(BLOCK), channels, states])?;
    let y = zeros(&[streams, steps, channels])?;
    let lanes = states.next_power_of_two();
    let groups = channels.div_ceil(THREADS / lanes);
    let grid = Grid { blocks: [groups, streams], threads: [lanes, THREADS / lanes] };
    let sizes = [steps, channels, states].map(Arg::Size);
    let operands = (du.detach(), bc.detach(), a.detach());
    let mut args = sizes.to_vec();
    args.extend([&operands.0, &operands.1, &operands.2, &h, &kept, &y].map(Arg::Tensor));
    launch(u.device(), kernel("scan_forward"), grid, &args)?;
    let back = move |dy: &Tensor| {
        let (du, bc, a) = &operands;
        let d_du = du.zeros_like()?;
        let d_bc = Tensor::zeros((streams, groups, steps, 2 * states), dy.dtype(), dy.device())?;
        let d_a = Tensor::zeros((streams, channels, states), dy.dtype(), dy.device())?;
        let mut args = sizes.to_vec();
        args.extend([du, bc, a, &kept, dy, &d_du, &d_bc, &d_a].map(Arg::Tensor));
        launch(dy.device(), kernel("scan_backward"), grid, &args)?;
        Ok([Some(d_du), Some(d_bc.sum(1)?), Some(d_a.sum(0)?)])
    };
    Ok(Some((on_graph(&y, [&du, &bc, &a], back)?, h)))
}
