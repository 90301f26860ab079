//! STDP and pruning on a device: what [`crate::plasticity`] does beside the gradient. Scalars, thresholds and masks are the host's; pairs,
//! `Ω` and directions stay on the device.

use learner::product::View;
use learner::{LayerValue, Result};

use super::machine::{Arg, At, Grid, Machine, Matrix, Source, array, marks, matrix, wide, words};
use super::network::Network;
use crate::config::{BimConfig, Bounds, Mixing};
use crate::kernels::stdp::Window;
use crate::plasticity::{Plasticity, Site, shuffled_steps};
use crate::time_differences::Quantity;

/// Threads of a sum over synapses.
const SUM: usize = 256;
/// 64-bit numbers that a pathway leaves: three moments of direction and `Ω`, and two of its weights.
const SUMS: usize = 5;

/// Arrays of a pathway, in the order of [`Plasticity::pathways`].
struct Arrays<M: Machine> {
    /// Decaying sums of spikes `[streams, pre]` and `[streams, post]`.
    pairs: [M::Buffer; 2],
    omega: M::Buffer,
    mask: M::Buffer,
}

/// The arrays of all pathways.
pub(crate) struct Synapses<M: Machine> {
    arrays: Vec<Arrays<M>>,
    weighted: M::Buffer,
    after: M::Buffer,
    /// Presynaptic spikes in another order of time, and postsynaptic ones by channel.
    shuffled: M::Buffer,
    channels: M::Buffer,
    sums: M::Buffer,
}

impl<M: Machine> Synapses<M> {
    /// No spikes seen, nothing pruned. `segment` is the longest chunk.
    pub fn new(machine: &M, c: &BimConfig, plasticity: &Plasticity, streams: usize, segment: usize) -> Result<Self> {
        let mixes = plasticity.mixes();
        let zeros = |n: usize| machine.zeros(if mixes { n } else { 0 });
        let arrays = plasticity.pathways.iter().map(|path| {
            Ok(Arrays {
                pairs: [zeros(streams * path.pre)?, zeros(streams * path.post)?],
                omega: zeros(path.omega.len())?,
                mask: machine.zeros(if plasticity.prunes() { path.mask.len() } else { 0 })?,
            })
        });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let (rows, widest) = (segment * streams, c.neurons().max(c.channels.0));
        let synapses = Self {
            weighted: zeros(rows * widest)?,
            after: zeros(streams * widest)?,
            shuffled: zeros(if c.stdp.shuffled { rows * widest } else { 0 })?,
            channels: zeros(if c.population.0 > 1 { rows * c.width.0 } else { 0 })?,
            sums: machine.zeros(2 * SUMS * arrays.len())?,
            arrays,
        };
        synapses.upload_masks(machine, plasticity)?;
        Ok(synapses)
    }

    /// Takes over the masks that the host has.
    pub fn upload_masks(&self, machine: &M, plasticity: &Plasticity) -> Result<()> {
        if plasticity.prunes() {
            for (path, arrays) in plasticity.pathways.iter().zip(&self.arrays) {
                machine.upload(&path.mask, At(&arrays.mask, 0))?;
            }
        }
        Ok(())
    }

    /// Takes over everything that the host has.
    pub fn upload(&self, machine: &M, plasticity: &Plasticity) -> Result<()> {
        self.upload_masks(machine, plasticity)?;
        if plasticity.mixes() {
            for (path, arrays) in plasticity.pathways.iter().zip(&self.arrays) {
                // groups are streams side by side
                let pre: Vec<f32> = path.pairs.iter().flat_map(|p| &p.pre).copied().collect();
                let post: Vec<f32> = path.pairs.iter().flat_map(|p| &p.post).copied().collect();
                machine.upload(&pre, At(&arrays.pairs[0], 0))?;
                machine.upload(&post, At(&arrays.pairs[1], 0))?;
                machine.upload(&path.omega, At(&arrays.omega, 0))?;
            }
        }
        Ok(())
    }

    /// Gives the host what it has not: pairs and `Ω`.
    pub fn download(&self, machine: &M, plasticity: &mut Plasticity) -> Result<()> {
        if plasticity.mixes() {
            for (path, arrays) in plasticity.pathways.iter_mut().zip(&self.arrays) {
                let (mut pre, mut post) = (0, 0);
                for pairs in &mut path.pairs {
                    machine.download(At(&arrays.pairs[0], pre), &mut pairs.pre)?;
                    machine.download(At(&arrays.pairs[1], post), &mut pairs.post)?;
                    (pre, post) = (pre + pairs.pre.len(), post + pairs.post.len());
                }
                machine.download(At(&arrays.omega, 0), &mut path.omega)?;
            }
        }
        Ok(())
    }

    /// Forgets the spikes of the marked streams.
    pub fn reset(&self, machine: &M, plasticity: &Plasticity, starts: &[bool]) -> Result<()> {
        if !plasticity.mixes() || !starts.contains(&true) {
            return Ok(());
        }
        let marks = marks(machine, starts)?;
        let streams = starts.len();
        for (path, arrays) in plasticity.pathways.iter().zip(&self.arrays) {
            for (pairs, columns) in arrays.pairs.iter().zip([path.pre, path.post]) {
                let sizes = [1, streams, columns].map(Arg::Size);
                let args = sizes.into_iter().chain([Arg::all(&*marks), Arg::all(pairs)]).collect::<Vec<_>>();
                machine.launch(Source::Network, "reset_streams", Grid::over_each(columns, streams), &args)?;
            }
        }
        Ok(())
    }

    /// Collects the chunk's pairs of spikes, before the chunk is ended.
    pub fn observe(&self, network: &Network<M>, plasticity: &Plasticity, c: &BimConfig, update: u64) -> Result<()> {
        if !plasticity.mixes() {
            return Ok(());
        }
        let machine = &network.machine;
        let (streams, steps) = (network.io.streams, network.steps());
        for (path, arrays) in plasticity.pathways.iter().zip(&self.arrays).filter(|(path, _)| path.pairs(c)) {
            let block = &network.blocks[path.layer];
            let fired = |l: usize| {
                let block = &network.blocks[l];
                At(&block.pre_s, (block.sizes.delays - 1) * streams * block.sizes.j)
            };
            let (mut pre, mut post) = (fired(path.layer), At(&block.s, 0));
            if path.site == Site::Output {
                (pre, post) = (post, fired(path.layer + 1));
                if c.population.0 > 1 {
                    let count = steps * streams * c.width.0;
                    let mut args = Vec::from([count, c.width.0, c.population.0].map(Arg::Size));
                    args.extend([Arg::At(post), Arg::all(&self.channels)]);
                    machine.launch(Source::Plasticity, "stdp_channels", Grid::over(count), &args)?;
                    post = At(&self.channels, 0);
                }
            }
            if c.stdp.shuffled {
                let order = |b: usize| shuffled_steps(steps, (plasticity.seed, update), &path.name, b);
                let order: Vec<u32> = (0..streams).flat_map(order).map(|t| t as u32).collect();
                let order = array(machine, &words(&order))?;
                let mut args = Vec::from([steps, streams, path.pre].map(Arg::Size));
                args.extend([Arg::all(&*order), Arg::At(pre), Arg::all(&self.shuffled)]);
                machine.launch(Source::Plasticity, "stdp_shuffle", Grid::over_each(path.pre, streams), &args)?;
                pre = At(&self.shuffled, 0);
            }
            self.pair(machine, c, arrays, [pre, post], [path.pre, path.post], (steps, streams))?;
        }
        Ok(())
    }

    fn pair(
        &self,
        machine: &M,
        c: &BimConfig,
        arrays: &Arrays<M>,
        [pre, post]: [At<'_, M>; 2],
        [j, d]: [usize; 2],
        (steps, streams): (usize, usize),
    ) -> Result<()> {
        let Window { a_plus, a_minus, keep_pre, keep_post, at_zero } = Window::new(&c.stdp);
        let numbers = [a_plus, a_minus, keep_pre, keep_post, at_zero];
        let mut args = vec![Arg::Size(steps), Arg::Size(streams * j)];
        args.extend(numbers.map(Arg::F32));
        args.extend([Arg::At(pre), Arg::all(&arrays.pairs[0]), Arg::all(&self.weighted), Arg::all(&self.after)]);
        machine.launch(Source::Plasticity, "stdp_pre", Grid::over(streams * j), &args)?;
        let rows = steps * streams;
        let omega = || matrix(&arrays.omega, 0, View::new(d, j));
        let spikes = Matrix { at: post, view: View::new(rows, d).t(), stride: 0 };
        machine.product(1, omega(), spikes, matrix(&self.weighted, 0, View::new(rows, j)), 1.0)?;
        let before = matrix(&arrays.pairs[1], 0, View::new(streams, d).t());
        machine.product(1, omega(), before, matrix(&self.after, 0, View::new(streams, j)), 1.0)?;
        let mut args = vec![Arg::Size(steps), Arg::Size(streams * d), Arg::F32(keep_post)];
        args.extend([Arg::At(post), Arg::all(&arrays.pairs[1])]);
        machine.launch(Source::Plasticity, "stdp_post", Grid::over(streams * d), &args)
    }

    /// Clears gradients, or directions, at pruned synapses.
    pub fn mask(&self, network: &Network<M>, plasticity: &Plasticity, values: &M::Buffer) -> Result<()> {
        if !plasticity.prunes() {
            return Ok(());
        }
        for (path, arrays) in plasticity.pathways.iter().zip(&self.arrays) {
            let (count, at) = (path.mask.len(), place(network, path.layer, path.site));
            let args = [Arg::Size(count), Arg::all(&arrays.mask), Arg::from(values, at)];
            network.machine.launch(Source::Update, "synapse_mask", Grid::over(count), &args)?;
        }
        Ok(())
    }

    /// Mixes STDP into the directions `d` (eq. 4); `g` are the raw gradients. Both have zeros at pruned synapses. The host waits once,
    /// for the moments of all pathways.
    pub fn mix(
        &self,
        network: &Network<M>,
        plasticity: &mut Plasticity,
        c: &BimConfig,
        (g, d): (&M::Buffer, &M::Buffer),
        (update, diagnose): (u64, bool),
    ) -> Result<Vec<LayerValue>> {
        let mut values = Vec::new();
        if !plasticity.mixes() {
            return Ok(values);
        }
        let (machine, lambda, prunes) = (&network.machine, plasticity.lambda(update), plasticity.prunes());
        for (i, (path, arrays)) in plasticity.pathways.iter().zip(&self.arrays).enumerate() {
            if !path.pairs(c) {
                continue;
            }
            let (count, at) = (path.omega.len(), place(network, path.layer, path.site));
            let over = Grid::over(count);
            let omega = || Arg::all(&arrays.omega);
            if prunes {
                // what spikes did where no synapse is left says nothing about those that are
                let args = [Arg::Size(count), Arg::all(&arrays.mask), omega()];
                machine.launch(Source::Update, "synapse_mask", over, &args)?;
            }
            let symmetric = match c.stdp.bounds {
                Bounds::None | Bounds::Hard => None,
                Bounds::Soft => Some(0),
                Bounds::Symmetric => Some(1),
            };
            if let Some(symmetric) = symmetric {
                let size = self.size(network, i, count, at)?;
                let mut args = vec![Arg::Size(count), Arg::Size(symmetric), Arg::F32(c.stdp.limit.0 as f32)];
                args.extend([size, Arg::from(&*network.weights, at), omega()]);
                machine.launch(Source::Update, "synapse_bound", over, &args)?;
            }
            let args = [Arg::Size(count), Arg::from(d, at), omega(), Arg::from(&self.sums, 2 * SUMS * i)];
            machine.launch(Source::Plasticity, "mix_moments", Grid::of(1, SUM), &args)?;
        }
        self.measure(machine, plasticity, c, update)?;
        let sums = wide(machine, &self.sums, 0, SUMS * self.arrays.len())?;
        let paths = plasticity.pathways.iter_mut().zip(&self.arrays).zip(sums.chunks_exact(SUMS));
        for ((path, arrays), sums) in paths.filter(|((path, _), _)| path.pairs(c)) {
            let moments = [sums[0], sums[1], sums[2]];
            let (keep, add) = path.shares(c.mixing, lambda, [moments[0], moments[1]]);
            let (count, at) = (path.omega.len(), place(network, path.layer, path.site));
            let raw = match c.mixing {
                Mixing::Normalised => Arg::Null,
                Mixing::AsPrinted => Arg::from(g, at),
            };
            let mut args = vec![Arg::Size(count), Arg::F32(keep), Arg::F32(add), raw];
            args.extend([Arg::from(d, at), Arg::all(&arrays.omega)]);
            machine.launch(Source::Plasticity, "mix", Grid::over(count), &args)?;
            if diagnose {
                values.extend(path.mixed(moments));
            }
        }
        Ok(values)
    }

    /// Measures `Ω` by time difference, if this update is measured: it is copied to the host.
    fn measure(&self, machine: &M, plasticity: &mut Plasticity, c: &BimConfig, update: u64) -> Result<()> {
        let [_, measured] = plasticity.differences.due(update);
        if !measured {
            return Ok(());
        }
        let Plasticity { pathways, differences, .. } = plasticity;
        let paired = pathways.iter().zip(&self.arrays).filter(|(path, _)| path.pairs(c));
        for (i, (path, arrays)) in paired.enumerate() {
            let mut omega = vec![0.0; path.omega.len()];
            machine.download(At(&arrays.omega, 0), &mut omega)?;
            differences.measure(i, Quantity::Stdp, &omega, 1.0);
        }
        Ok(())
    }

    /// Leaves how large a pathway's weights are, for the kernels that bound them.
    fn size(&self, network: &Network<M>, pathway: usize, count: usize, at: usize) -> Result<Arg<'_, M>> {
        let to = 2 * (SUMS * pathway + 3);
        let args = [Arg::Size(count), Arg::from(&*network.weights, at), Arg::from(&self.sums, to)];
        network.machine.launch(Source::Update, "synapse_size", Grid::of(1, SUM), &args)?;
        Ok(Arg::from(&self.sums, to))
    }

    /// Cuts weights off at their bound, where bounds are hard.
    pub fn clip(&self, network: &Network<M>, plasticity: &Plasticity, c: &BimConfig) -> Result<()> {
        if !plasticity.mixes() || c.stdp.bounds != Bounds::Hard {
            return Ok(());
        }
        for (i, path) in plasticity.pathways.iter().enumerate() {
            let (count, at) = (path.omega.len(), place(network, path.layer, path.site));
            let size = self.size(network, i, count, at)?;
            let args = [Arg::Size(count), Arg::F32(c.stdp.limit.0 as f32), size, Arg::from(&*network.weights, at)];
            network.machine.launch(Source::Update, "synapse_clip", Grid::over(count), &args)?;
        }
        Ok(())
    }
}

/// Where a pathway's weights begin among all parameters.
fn place<M: Machine>(network: &Network<M>, layer: usize, site: Site) -> usize {
    let places = &network.places.blocks[layer];
    match site {
        Site::Input => places.projection.at,
        Site::Output => places.out.at,
    }
}
