//! Configuration of the network and its learning rule. Every value is checked while it is read, so that an error
//! points at the key that caused it.

use learner::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod credit;
mod dynamics;
mod neurons;
mod numbers;
mod plasticity;

pub use self::credit::{Credit, Front, Inference};
pub use self::dynamics::{DecayForm, DeltaInput, Initial};
pub use self::neurons::{HomeostasisConfig, Levels, NeuronConfig, ReadoutConfig, Reset, SpikeCode, Step, Surrogate};
pub use self::numbers::{BelowOne, Bits, Count, FURTHEST, Lag, NonNegative, Positive, Share, StepSize};
pub use self::plasticity::{Bounds, DiagnoseConfig, Mixing, PruneConfig, PruneRule, Rates, StdpConfig, Third};

/// Whether a value is the default: such keys are not stored, so that cells from before them keep their id.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How fast prices move unless a configuration says so: slow beside the neurons, and a target of half the activity is met within 300
/// updates.
const ENERGY_RATE: Positive = Positive(0.004);

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_energy_rate(rate: &Positive) -> bool {
    *rate == ENERGY_RATE
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn no_target(target: &NonNegative) -> bool {
    target.0 == 0.0
}

/// The network and its learning rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BimConfig {
    /// Width of the residual stream. A block has `J = width · population` presynaptic neurons.
    pub width: Count,
    /// Channels of the state space and postsynaptic neurons per block, `D`.
    pub channels: Count,
    /// State size per channel, `N`.
    pub state: Count,
    /// Heads, `H`.
    pub heads: Count,
    /// Blocks.
    pub layers: Count,
    /// Presynaptic neurons per channel of the residual stream: each has its own gain and current, odd ones with the
    /// opposite sign (OFF cells). With `currents`, every pair begins with a higher threshold than the one before.
    pub population: Count,
    /// Taps of the causal convolution in front of the presynaptic neurons: 1 means none.
    pub conv: Count,
    /// Whether `SiLU` follows that convolution.
    pub silu: bool,
    /// Taps of the axonal delay line behind the presynaptic neurons: 1 means none.
    pub delays: Count,
    /// `κ`, decay per step of the post-synaptic kernel; 0 means none.
    pub kernel: Share,
    /// Whether both populations of neurons get a learned input current, `I_ext` of eq. 3.
    pub currents: bool,
    /// Whether a `SiLU` gate multiplies the block's output.
    pub gate: bool,
    /// Form of the decay.
    pub decay: DecayForm,
    /// Inputs of the step size.
    pub delta_input: DeltaInput,
    /// What rates of decay and step sizes begin as.
    #[serde(skip_serializing_if = "is_default")] // cells from before it keep their id
    #[schemars(extend("default" = Initial::default()))] // what is not stored has none in the schema otherwise
    pub initial: Initial,
    /// Presynaptic neurons (`LIF_in`).
    pub pre: NeuronConfig,
    /// Postsynaptic neurons (`LIF_out`).
    pub post: NeuronConfig,
    /// Neurons in front of the output layer.
    pub readout: ReadoutConfig,
    /// Credit assignment.
    pub credit: Credit,
    /// Credit of gains, currents, convolution, delays and learned steps of the presynaptic neurons.
    #[serde(skip_serializing_if = "is_default")] // cells from before it keep their id
    #[schemars(extend("default" = "chunk"))] // what is not stored has none in the schema otherwise
    pub front: Front,
    /// Steps that `tbptt` backpropagates through at every update, rounded up to whole chunks; 0 is the chunk alone. With more,
    /// updates still come every chunk (`BPTT(h; h′)` of Williams and Peng 1990) and every pass is charged.
    pub reach: u64,
    /// Factors on the learning rate.
    pub rates: Rates,
    /// `λ`: 1 is gradient alone, 0 is STDP alone.
    pub lambda: Share,
    /// Updates over which `λ` falls from 1 to its value.
    pub lambda_warmup: u64,
    /// Reading of eq. 4.
    pub mixing: Mixing,
    /// Gradient diagnostics.
    pub diagnose: DiagnoseConfig,
    /// STDP.
    pub stdp: StdpConfig,
    /// Pruning.
    pub prune: PruneConfig,
    /// Target for what spikes cost, in place of a fixed `penalty`: accumulates of the synapses behind a population of neurons, as a share of
    /// the multiply–accumulates that the same synapses would make of numbers. Every population (presynaptic and postsynaptic neurons of
    /// each layer, read-out) has a price of its own, from 0, which rises while its share is above the target and falls while it is
    /// below. With nothing pruned the share is the number of spikes per neuron and step. 0 is no target. [`crate::energy`] has the
    /// controller.
    #[serde(skip_serializing_if = "no_target")] // cells from before it keep their id
    #[schemars(extend("default" = 0.0))] // as above
    pub energy_target: NonNegative,
    /// Most that such a price moves at an update: it moves by `energy_rate · (share / energy_target − 1)`, and by no more where the share is
    /// twice the target and higher.
    #[serde(skip_serializing_if = "is_energy_rate")] // as above
    #[schemars(extend("default" = 0.004))] // as above
    pub energy_rate: Positive,
    /// Firing rates that thresholds hold: of each presynaptic neuron and of each postsynaptic one.
    #[serde(skip_serializing_if = "is_default")] // as above
    #[schemars(extend("default" = HomeostasisConfig::default()))] // as above
    pub homeostasis: HomeostasisConfig,
    /// How the products of spikes are made while scoring: `dense` (the default), or from `events`, so that silent synapses cost nothing.
    #[serde(skip_serializing_if = "is_default")] // cells from before it keep their id
    #[schemars(extend("default" = "dense"))] // as above
    pub inference: Inference,
}

impl Default for BimConfig {
    fn default() -> Self {
        Self {
            width: Count(128),
            channels: Count(256),
            state: Count(16),
            heads: Count(8),
            layers: Count(4),
            population: Count(1),
            conv: Count(4),
            silu: false,
            delays: Count(1),
            kernel: Share(0.0),
            currents: false,
            gate: true,
            decay: DecayForm::Head,
            delta_input: DeltaInput::Group,
            initial: Initial::default(),
            pre: NeuronConfig::default(),
            post: NeuronConfig::default(),
            readout: ReadoutConfig::default(),
            credit: Credit::Hybrid,
            front: Front::Chunk,
            reach: 0,
            rates: Rates::default(),
            lambda: Share(0.98),
            lambda_warmup: 0,
            mixing: Mixing::default(),
            diagnose: DiagnoseConfig::default(),
            stdp: StdpConfig::default(),
            prune: PruneConfig::default(),
            energy_target: NonNegative(0.0),
            energy_rate: ENERGY_RATE,
            homeostasis: HomeostasisConfig::default(),
            inference: Inference::default(),
        }
    }
}

impl BimConfig {
    /// Presynaptic neurons of a block, `J`.
    #[must_use]
    pub fn neurons(&self) -> usize {
        self.width.0 * self.population.0
    }

    /// The same network under a rule that carries no traces.
    #[must_use]
    pub(crate) fn without_traces(&self, credit: Credit) -> Self {
        Self { credit, front: Front::Chunk, ..self.clone() }
    }

    /// Whether spikes arrive otherwise than they were fired: behind a delay line or a kernel they are numbers.
    #[must_use]
    pub(crate) fn delayed(&self) -> bool {
        self.delays.0 > 1 || self.kernel.0 > 0.0
    }

    /// Whether spikes arrive at the synapses behind the presynaptic neurons, behind the postsynaptic ones, and at the read-out.
    #[must_use]
    pub(crate) fn spikes_arrive(&self) -> [bool; 3] {
        [self.pre.fires() && !self.delayed(), self.post.fires(), self.readout.neuron().fires()]
    }

    /// Whether the price of a spike of the presynaptic neurons, of the postsynaptic ones, and of the read-out is a controller's.
    #[must_use]
    pub(crate) fn controlled(&self) -> [bool; 3] {
        if no_target(&self.energy_target) { [false; 3] } else { self.spikes_arrive() }
    }

    /// Checks what no single key can know.
    ///
    /// # Errors
    /// Names the key and what would be right.
    pub fn check(&self) -> Result<()> {
        let err = |key, problem: String| Err(Error::Config { key, problem });
        if !self.channels.0.is_multiple_of(self.heads.0) {
            return err(
                "channels",
                format!("expected a multiple of heads = {}, got {}", self.heads.0, self.channels.0),
            );
        }
        if self.delta_input == DeltaInput::Group && !self.neurons().is_multiple_of(self.heads.0) {
            let problem = format!(
                "expected width · population to be a multiple of heads = {} (delta_input is group), got {} · {}",
                self.heads.0, self.width.0, self.population.0
            );
            return err("width", problem);
        }
        self.initial.check(self.decay)?;
        self.check_spikes()?;
        self.check_energy()?;
        self.check_homeostasis()?;
        if self.front == Front::Traces && !crate::rule::Rule::from(self.credit).carries {
            let problem =
                "traces need a rule that carries some: expected chunk, or credit: hybrid, exact, diagonal or eprop";
            return err("front", problem.into());
        }
        if self.inference == Inference::Events && !self.spikes_arrive().contains(&true) {
            let problem = "no synapse of this network sees spikes (they are codes, numbers, or delayed), so nothing would come from \
                           events; expected dense";
            return err("inference", problem.to_owned());
        }
        if self.reach > 0 && self.credit != Credit::Tbptt {
            return err(
                "reach",
                "only credit: tbptt reaches behind its chunk by backpropagation; leave reach out".into(),
            );
        }
        if self.reach > 0 && self.diagnose.every > 0 {
            let problem = "compares the gradient inside a chunk; leave it out where reach is given".to_owned();
            return err("diagnose.every", problem);
        }
        if self.credit == Credit::Exact && self.layers.0 > 1 {
            let problem = format!(
                "exact needs one layer, got {}: across layers, credit that persists partly in one layer's state and partly in a higher layer's is not carried by per-layer traces; use hybrid, or bptt for the full gradient",
                self.layers.0
            );
            return err("credit", problem);
        }
        Ok(())
    }

    /// Checks the target for what spikes cost.
    fn check_energy(&self) -> Result<()> {
        let err = |key, problem: &str| Err(Error::Config { key, problem: problem.to_owned() });
        if no_target(&self.energy_target) {
            if !is_energy_rate(&self.energy_rate) {
                let problem = "says how fast a price moves towards a target, but there is none: expected energy_target above 0, or \
                               nothing here";
                return err("energy_rate", problem);
            }
            return Ok(());
        }
        let penalties = [
            ("pre.penalty", self.pre.penalty),
            ("post.penalty", self.post.penalty),
            ("readout.penalty", self.readout.penalty),
        ];
        if let Some((key, _)) = penalties.into_iter().find(|(_, penalty)| penalty.0 > 0.0) {
            return err(key, "energy_target sets the prices: expected no penalty beside it, or no energy_target");
        }
        if self.pre.fires() && self.delayed() {
            let problem = "behind delays or a kernel spikes arrive as numbers, which synapses multiply, so there are no accumulates \
                           to count: expected neither delays nor a kernel, or no energy_target";
            return err("energy_target", problem);
        }
        if !self.spikes_arrive().contains(&true) {
            let problem = "no neuron of this network fires, so there is nothing to price: expected neurons with spikes, or no \
                           energy_target";
            return err("energy_target", problem);
        }
        Ok(())
    }

    /// Checks the firing rates that thresholds are to hold.
    fn check_homeostasis(&self) -> Result<()> {
        let c = &self.homeostasis;
        let err = |key, problem: String| Err(Error::Config { key, problem });
        if c.holds() == [false; 2] && !is_default(c) {
            let problem = "says how thresholds move, but no rate is to be held: expected pre or post above 0, or nothing under \
                           homeostasis";
            return err("homeostasis", problem.to_owned());
        }
        for (neuron, target, key, [step, reset]) in [
            (self.pre, c.pre.0, "homeostasis.pre", ["pre.step", "pre.attached_reset"]),
            (self.post, c.post.0, "homeostasis.post", ["post.step", "post.attached_reset"]),
        ] {
            if target == 0.0 {
                continue;
            }
            let most = match neuron.levels {
                Levels::Binary | Levels::Signed => 1,
                Levels::Integer | Levels::Unsigned => neuron.burst.0,
                Levels::Quantised | Levels::Analog => {
                    return err(
                        key,
                        "these neurons do not fire, so they have no rate: expected 0, or other levels".to_owned(),
                    );
                }
            };
            if target >= most as f64 {
                let problem =
                    format!("a rate that these neurons can reach is below {most} spikes per step, got {target}");
                return err(key, problem);
            }
            if neuron.step == Step::Learned {
                let problem = "the gradient moves a learned step, homeostasis a threshold, and they are one: expected fixed, or no rate \
                               to hold";
                return err(step, problem.to_owned());
            }
            if neuron.attached_reset && neuron.reset != Reset::None {
                let problem = "gradients through the reset would need each neuron's threshold in the traces of its membrane: expected \
                               false, reset: none, or no rate to hold";
                return err(reset, problem.to_owned());
            }
            if !no_target(&self.energy_target) {
                let problem = "a price and a threshold would both hold one population's activity: expected 0, or no energy_target";
                return err(key, problem.to_owned());
            }
        }
        Ok(())
    }

    /// Checks steps and codes of all populations of neurons.
    fn check_spikes(&self) -> Result<()> {
        let populations = [
            (self.pre, ["pre.step", "pre.spikes", "pre.attached_reset"]),
            (self.post, ["post.step", "post.spikes", "post.attached_reset"]),
            (self.readout.neuron(), ["readout.step", "readout.spikes", "readout"]),
        ];
        for (neuron, [step, spikes, reset]) in populations {
            let err = |key, problem: &str| Err(Error::Config { key, problem: problem.to_owned() });
            let learned = neuron.step == Step::Learned;
            if learned && neuron.levels == Levels::Analog {
                return err(step, "analog has no levels and so no step between them; expected fixed, or other levels");
            }
            let resets = neuron.fires() && neuron.reset != Reset::None;
            if learned && neuron.attached_reset && resets {
                let problem = "with a learned step the reset depends on that step, whose credit would need a trace of its own; \
                               expected false, reset: none, or step: fixed";
                return err(reset, problem);
            }
            let several = matches!(neuron.levels, Levels::Integer | Levels::Unsigned);
            if neuron.spikes == SpikeCode::Weighted && !several {
                return err(
                    spikes,
                    "weighted spikes need levels of several spikes: expected integer or unsigned, or burst",
                );
            }
        }
        if !self.readout.is_there() && self.readout != ReadoutConfig::default() {
            let problem = "says what its neurons are like, but there are none: expected levels of their own \
                           (levels: integer, say), or nothing under readout";
            return Err(Error::Config { key: "readout", problem: problem.to_owned() });
        }
        if self.pre.step == Step::Learned && (self.delays.0 > 1 || self.kernel.0 > 0.0) {
            let problem = "a learned step is folded into the weights that read the spikes; with delays or a kernel these are not \
                           the projections; expected fixed, or neither delays nor a kernel";
            return Err(Error::Config { key: "pre.step", problem: problem.to_owned() });
        }
        Ok(())
    }
}
