"""Peer: byte-level language modelling in PyTorch, as a user would write it.

  python lm.py --model transformer|mamba|snn|lstm [--text FILE --d 128 --layers 4 --seq 256 --batch 8 --steps 60]

With --test FILE it trains with our recipe and prints bits per byte over the whole of that file (common.py); mamba's scan and snn's
neurons then have gradients written by hand, which are compared with the plain form first. Speed is that of the plain form.
"""
import torch, torch.nn as nn, torch.nn.functional as F
from common import VOCABULARY, options, run_on_bytes


a = options(["transformer", "mamba", "snn", "lstm"])


class Transformer(nn.Module):
    """Pre-norm, learned positions, four heads, fused attention."""

    def __init__(self):
        super().__init__()
        d = a.d
        self.positions = nn.Parameter(torch.randn(a.seq, d) * 0.02)
        layer = lambda: nn.ModuleDict(
            dict(n1=nn.LayerNorm(d), qkv=nn.Linear(d, 3 * d), o=nn.Linear(d, d), n2=nn.LayerNorm(d), up=nn.Linear(d, 4 * d), down=nn.Linear(4 * d, d))
        )
        self.layers = nn.ModuleList([layer() for _ in range(a.layers)])

    def forward(self, x, _):
        batch, steps, d = x.shape
        x = x + self.positions[:steps]
        for l in self.layers:
            q, k, v = l["qkv"](l["n1"](x)).view(batch, steps, 3, 4, d // 4).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, steps, d)
            x = x + l["o"](y)
            x = x + l["down"](F.gelu(l["up"](l["n2"](x))))
        return x, None


def scan(decay, x):
    """h_t = decay_t h_{t-1} + x_t over dimension 1, in log T rounds (Hillis and Steele)."""
    steps, s = decay.shape[1], 1
    while s < steps:
        x = torch.cat([x[:, :s], x[:, s:] + decay[:, s:] * x[:, :-s]], 1)
        decay = torch.cat([decay[:, :s], decay[:, s:] * decay[:, :-s]], 1)
        s *= 2
    return x


class StepByStep(torch.autograd.Function):
    """The sums of `scan` one after the other and their gradient by hand: what --test trains with, because the
    parallel form costs seven times the work at 128 steps."""

    @staticmethod
    def forward(ctx, decay, x):
        h = torch.empty_like(x)
        h[:, 0] = x[:, 0]
        for t in range(1, x.shape[1]):
            torch.addcmul(x[:, t], decay[:, t], h[:, t - 1], out=h[:, t])
        ctx.save_for_backward(decay, h)
        return h

    @staticmethod
    def backward(ctx, g):
        decay, h = ctx.saved_tensors
        g = g.clone()
        for t in range(g.shape[1] - 1, 0, -1):
            g[:, t - 1].addcmul_(decay[:, t], g[:, t])
        decays = torch.zeros_like(decay)
        torch.mul(g[:, 1:], h[:, :-1], out=decays[:, 1:])
        return decays, g

    @staticmethod
    def check():
        """Both forms give the same sums and the same gradients."""
        decay, x = (torch.rand(2, 21, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
        found = []
        for form in (scan, StepByStep.apply):
            h = form(decay, x)
            found.append((h, *torch.autograd.grad((h * h).sum(), (decay, x))))
        for parallel, stepwise in zip(*found):
            torch.testing.assert_close(stepwise, parallel, rtol=1e-12, atol=1e-12)


class MambaBlock(nn.Module):
    """S6 with convolution and gate, scanned in parallel with PyTorch's own operations."""

    def __init__(self, states=16):
        super().__init__()
        d, inner = a.d, 2 * a.d
        self.states, self.rank = states, max(1, d // 16)
        self.norm, self.inp = nn.RMSNorm(d), nn.Linear(d, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, 4, groups=inner, padding=3)
        self.xp = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.dt, self.out = nn.Linear(self.rank, inner), nn.Linear(inner, d, bias=False)
        self.a_log = nn.Parameter(torch.log(torch.arange(1, states + 1).float()).repeat(inner, 1))
        self.skip = nn.Parameter(torch.ones(inner))

    def forward(self, x):
        steps = x.shape[1]
        u, z = self.inp(self.norm(x)).chunk(2, -1)
        u = F.silu(self.conv(u.transpose(1, 2))[..., :steps].transpose(1, 2))
        delta, b, c = self.xp(u).split([self.rank, self.states, self.states], -1)
        delta = F.softplus(self.dt(delta))[..., None]
        h = (StepByStep.apply if a.test else scan)(torch.exp(delta * -torch.exp(self.a_log)), delta * b[:, :, None] * u[..., None])
        return x + self.out(((h * c[:, :, None]).sum(-1) + self.skip * u) * F.silu(z))


class Mamba(nn.Module):
    def __init__(self):
        super().__init__()
        if a.test:
            StepByStep.check()
        self.layers = nn.Sequential(*[MambaBlock() for _ in range(a.layers)])

    def forward(self, x, _):
        return self.layers(x), None


class Spikes(torch.autograd.Function):
    """Spikes and last membrane of one layer of snnTorch's `Leaky(beta=0.9, spike_grad=fast_sigmoid())` from its currents `[B, T, D]`
    and the membrane before: one loop per layer instead of one over layers inside one over steps, the gradient by hand.
    What --test trains with; `Snn` compares it with snnTorch first."""

    beta, slope = 0.9, 25.0

    @staticmethod
    def forward(ctx, current, membrane):
        over = torch.empty_like(current)  # membrane - threshold
        for t in range(current.shape[1]):
            membrane = torch.addcmul(current[:, t], membrane, torch.tensor(Spikes.beta, dtype=current.dtype)) - (membrane > 1).to(current.dtype)
            torch.sub(membrane, 1, out=over[:, t])
        ctx.save_for_backward(over)
        ctx.mark_non_differentiable(membrane)
        return (over > 0).to(current.dtype), membrane

    @staticmethod
    def backward(ctx, g, _):
        (over,) = ctx.saved_tensors
        d = g / (Spikes.slope * over.abs() + 1).square()
        for t in range(d.shape[1] - 1, 0, -1):
            d[:, t - 1].add_(d[:, t], alpha=Spikes.beta)
        return d, None


class Snn(nn.Module):
    """Leaky neurons of snnTorch; each layer after the first adds its input to its spikes, as ours does by default."""

    def __init__(self):
        super().__init__()
        import snntorch
        from snntorch import surrogate

        self.linear = nn.ModuleList([nn.Linear(a.d, a.d) for _ in range(a.layers)])
        self.neurons = nn.ModuleList([snntorch.Leaky(beta=0.9, spike_grad=surrogate.fast_sigmoid()) for _ in range(a.layers)])
        if a.test:
            self.check()

    def forward(self, x, state):
        return (self.by_layers if a.test else self.by_steps)(x, state)

    def by_steps(self, x, state):
        v, out = state or [n.init_leaky() for n in self.neurons], []
        for t in range(x.shape[1]):
            y = x[:, t]
            for i, (linear, neuron) in enumerate(zip(self.linear, self.neurons)):
                s, v[i] = neuron(linear(y), v[i])
                y = s + y if i > 0 else s
            out.append(y)
        return torch.stack(out, 1), v

    def by_layers(self, x, state):
        v = state or [x.new_zeros(x.shape[0], a.d) for _ in self.linear]
        for i, linear in enumerate(self.linear):
            s, v[i] = Spikes.apply(linear(x), v[i])
            x = s + x if i > 0 else s
        return x, v

    def check(self):
        """Both orders give the same spikes, membranes and gradients, also of a second segment: with one of three inputs, because
        products that are rounded otherwise may make a spike more or less."""
        for last in (False, False, True):
            x, found = 3 * torch.randn(2, 2, 9, a.d, requires_grad=True), []
            for form in (self.by_steps, self.by_layers):
                _, v = form(x[0], None)
                y, v = form(x[1], [v.detach() for v in v])
                weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
                found.append((y, *v, *torch.autograd.grad((y * weight).sum(), (x, *self.linear.parameters()))))
            assert 0.02 < found[0][0].gt(0).float().mean() < 0.98, "hardly a spike to compare"
            try:
                for steps, layers in zip(*found):
                    torch.testing.assert_close(layers, steps, rtol=0, atol=1e-4 * steps.abs().max().item())
                return
            except AssertionError:
                if last:
                    raise


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.LSTM(a.d, a.d, a.layers, batch_first=True)

    def forward(self, x, state):
        return self.layers(x, state)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, a.d), nn.Linear(a.d, VOCABULARY)
        self.body = dict(transformer=Transformer, mamba=Mamba, snn=Snn, lstm=Lstm)[a.model]()
        self.state = None

    def forward(self, x):
        y, state = self.body(self.embedding(x), self.state)
        if a.test and state is not None:
            self.state = tuple(s.detach() for s in state) if isinstance(state, tuple) else [s.detach() for s in state]
        return self.head(y)


run_on_bytes(a, Model())
