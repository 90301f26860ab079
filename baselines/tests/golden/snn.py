"""Golden values of the SNN, by snntorch.Leaky and snntorch.RLeaky (snnTorch 1.0.0)."""
import snntorch, torch
from snntorch import surrogate
from common import VOCABULARY, Weights, case, class_loss, class_targets, io, tokens, write

B, K, H, LAYERS = 3, 9, 12, 2
BETA, THRESHOLD, SLOPE = 0.9, 1.0, 25.0


def build(recurrent, residual):
    w = Weights()
    w.new("embedding.weight", VOCABULARY, H, scale=1.0)
    for i in range(LAYERS):
        w.new(f"layers.{i}.weight", 2 * H if recurrent else H, H, scale=0.5)
        w.new(f"layers.{i}.bias", H, scale=0.3)
    w.new("output.weight", H, VOCABULARY)
    w.new("output.bias", VOCABULARY, scale=0.5)
    fire, closest = surrogate.fast_sigmoid(slope=SLOPE), []
    grad = lambda excess: fire(excess).double()  # its spikes are f32

    def layer(i, x, state):
        weight, bias = w[f"layers.{i}.weight"], w[f"layers.{i}.bias"]
        spikes, (s, u) = [], state
        if recurrent:
            neuron = snntorch.RLeaky(BETA, linear_features=H, threshold=THRESHOLD, spike_grad=grad).double()
            del neuron.recurrent
            neuron.recurrent = lambda s: s @ weight[H:]
        else:
            neuron = snntorch.Leaky(BETA, threshold=THRESHOLD, spike_grad=grad).double()
        # snnTorch keeps its constants in f32
        neuron.beta, neuron.threshold = torch.tensor(BETA).double(), torch.tensor(THRESHOLD).double()
        for t in range(x.shape[1]):
            current = x[:, t] @ weight[:H] + bias
            s, u = neuron(current, s, u) if recurrent else neuron(current, u)
            closest.append((u - THRESHOLD).abs().min().item())
            spikes.append(s)
        return torch.stack(spikes, 1), (s.detach(), u.detach())

    def segment(ids, state):
        x, after = w["embedding.weight"][ids], []
        for i in range(LAYERS):
            y, s = layer(i, x, state[i])
            after.append(s)
            x = x + y if residual and i > 0 else y
            print(f"layer {i} fires {y.mean().item():.2f}")
        return x @ w["output.weight"] + w["output.bias"], after

    state = [(torch.zeros(B, H).double(), torch.zeros(B, H).double()) for _ in range(LAYERS)]
    inputs, target = [tokens(B, K), tokens(B, K)], class_targets(B, K)
    first, state = segment(inputs[0], state)
    second, _ = segment(inputs[1], state)
    # a membrane nearer to the threshold than f32 can tell would make a spike a matter of rounding
    assert min(closest) > 2e-5, min(closest)
    model = {"kind": "snn", "width": H, "layers": LAYERS, "decay": BETA, "threshold": THRESHOLD, "slope": SLOPE,
             "recurrent": recurrent, "residual": residual}
    return case(model, io(B, K), w, inputs, [first, second], "class", target, class_loss(second, target))


write(__file__, [build(False, False), build(True, True)])
