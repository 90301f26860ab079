"""Golden values of the LSTM, by torch.nn.LSTM."""
import torch
from torch.func import functional_call
from common import VOCABULARY, Weights, case, class_loss, class_targets, io, tokens, write

B, K, H, LAYERS = 3, 6, 9, 2
w = Weights()
w.new("embedding.weight", VOCABULARY, H, scale=0.7)
for i in range(LAYERS):
    w.new(f"layers.{i}.weight", 2 * H, 4 * H)
    w.new(f"layers.{i}.bias", 4 * H, scale=0.5)
w.new("output.weight", H, VOCABULARY)
w.new("output.bias", VOCABULARY, scale=0.5)


def segment(ids, state):
    x = w["embedding.weight"][ids]
    after = []
    for i in range(LAYERS):
        weight, bias = w[f"layers.{i}.weight"], w[f"layers.{i}.bias"]
        given = {"weight_ih_l0": weight[:H].T, "weight_hh_l0": weight[H:].T, "bias_ih_l0": bias, "bias_hh_l0": 0 * bias}
        lstm = torch.nn.LSTM(H, H, batch_first=True).double()
        y, (h, c) = functional_call(lstm, given, (x, state[i]))
        after.append((h.detach(), c.detach()))
        x = x + y if i > 0 else y
    return x @ w["output.weight"] + w["output.bias"], after


state = [(torch.zeros(1, B, H).double(), torch.zeros(1, B, H).double()) for _ in range(LAYERS)]
inputs, target = [tokens(B, K), tokens(B, K)], class_targets(B, K)
first, state = segment(inputs[0], state)
second, _ = segment(inputs[1], state)
model = {"kind": "lstm", "width": H, "layers": LAYERS, "residual": True}
write(__file__, [case(model, io(B, K), w, inputs, [first, second], "class", target, class_loss(second, target))])
