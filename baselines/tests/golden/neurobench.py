"""Golden counts by NeuroBench 2.3.0 (its SynapticOperations metric) of a spiking network and of a multilayer perceptron with
weights and activations of which some are zero. `pip install neurobench snntorch torch`, then `python3 neurobench.py`."""
import os, sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != here]  # this file is not the package
import torch, snntorch
from neurobench.hooks.layer import LayerHook
from neurobench.metrics.workload.synaptic_operations import SynapticOperations

sys.path.append(here)
from common import plain, write

B, K, F, H, O = 3, 12, 5, 10, 4
BETA, THRESHOLD = 0.9, 1.0


class Counted:
    """What the metric wants of a model: hooks on its connections."""

    def __init__(self, layers):
        self.connection_hooks = [LayerHook(layer) for layer in layers]


def linear(inputs, outputs, scale, bias):
    layer = torch.nn.Linear(inputs, outputs, bias=bias).double()
    with torch.no_grad():
        layer.weight.copy_((torch.randn(outputs, inputs) * scale).double())
        layer.weight[torch.rand(outputs, inputs) < 0.3] = 0
        if bias:
            layer.bias.copy_((torch.randn(outputs) * 0.3).double())
    return layer


def count(layers, run, x):
    model, metric = Counted(layers), SynapticOperations()
    with torch.no_grad():
        run(x)
        metric(model, None, (x, None))
    return {"macs": metric.MAC, "acs": metric.AC, "dense": metric.total_synops}


def spiking():
    into, first, second, out = linear(F, H, 1.0, True), linear(H, H, 0.6, True), linear(H, H, 0.6, True), linear(H, O, 0.5, True)
    closest = []

    def run(x):
        neurons = [snntorch.Leaky(BETA, threshold=THRESHOLD).double() for _ in range(2)]
        for n in neurons:
            n.beta, n.threshold = torch.tensor(BETA).double(), torch.tensor(THRESHOLD).double()
        state = [torch.zeros(B, H).double() for _ in neurons]
        fired = 0
        for t in range(K):
            y = into(x[:, t])
            for i, layer in enumerate([first, second]):
                s, state[i] = neurons[i](layer(y), state[i])
                closest.append((state[i] - THRESHOLD).abs().min().item())
                y = s.double()
                fired += y.sum().item()
            out(y)
        print(f"{fired:.0f} spikes, nearest to the threshold {min(closest):.1e}")

    x = torch.randn(B, K, F).double()
    expected = count([into, first, second, out], run, x)
    # a membrane nearer to the threshold than f32 can tell would make a spike a matter of rounding
    assert min(closest) > 2e-5, min(closest)
    named = {"input": into, "layers.0": first, "layers.1": second, "output": out}
    weights = {f"{n}.weight": plain(l.weight.T.contiguous()) for n, l in named.items()}
    weights |= {f"{n}.bias": plain(l.bias) for n, l in named.items()}
    model = {"kind": "snn", "width": H, "layers": 2, "decay": BETA, "threshold": THRESHOLD, "residual": False}
    io = {"input": {"frames": {"width": F}}, "outputs": O, "streams": B, "segment": K}
    return {"model": model, "io": io, "weights": weights, "input": plain(x), "expected": expected}


def perceptron():
    layers = [linear(F, H, 1.0, True), linear(H, H, 0.6, False), linear(H, O, 0.6, True)]
    inputs = []

    def run(x):
        for layer in layers:
            inputs.append(x)
            x = torch.relu(layer(x))

    x = torch.randn(B * K, F).double()
    x[torch.rand(B * K, F) < 0.2] = 0
    expected = count(layers, run, x)
    steps = [{"weight": plain(l.weight.T.contiguous()), "input": plain(x)} for l, x in zip(layers, inputs)]
    return {"layers": steps, "expected": expected}


write(__file__, {"spiking": spiking(), "perceptron": perceptron()})
