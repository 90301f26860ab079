"""Golden values of the RNN, by torch.nn.GRU and torch.nn.RNN. Our GRU's columns are candidate, reset, update for the input
and reset, update, candidate for the hidden state; PyTorch's are reset, update, candidate for both."""
import torch
from torch.func import functional_call
from common import VOCABULARY, Weights, case, class_loss, class_targets, io, tokens, write

B, K, H, LAYERS = 3, 6, 9, 2


def network(cell):
    columns, sums = (3, 4) if cell == "gru" else (1, 1)
    w = Weights()
    w.new("embedding.weight", VOCABULARY, H, scale=0.7)
    for i in range(LAYERS):
        w.new(f"layers.{i}.weight", 2 * H, columns * H)
        w.new(f"layers.{i}.bias", sums * H, scale=0.5)
    w.new("output.weight", H, VOCABULARY)
    w.new("output.bias", VOCABULARY, scale=0.5)

    def given(weight, bias):
        from_x, from_h = weight[:H].T, weight[H:].T
        if cell == "vanilla":
            return [from_x, from_h, bias, 0 * bias]
        n, r, z, u = bias.chunk(4)
        return [torch.cat([from_x[H:], from_x[:H]]), from_h, torch.cat([r, z, n]), torch.cat([0 * r, 0 * z, u])]

    def segment(ids, state):
        x = w["embedding.weight"][ids]
        after = []
        for i in range(LAYERS):
            module = (torch.nn.GRU if cell == "gru" else torch.nn.RNN)(H, H, batch_first=True).double()
            names = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
            values = given(w[f"layers.{i}.weight"], w[f"layers.{i}.bias"])
            y, h = functional_call(module, dict(zip(names, values)), (x, state[i]))
            after.append(h.detach())
            x = x + y if i > 0 else y
        return x @ w["output.weight"] + w["output.bias"], after

    inputs, target = [tokens(B, K), tokens(B, K)], class_targets(B, K)
    first, state = segment(inputs[0], [torch.zeros(1, B, H).double()] * LAYERS)
    second, _ = segment(inputs[1], state)
    model = {"kind": "rnn", "cell": cell, "width": H, "layers": LAYERS, "residual": True}
    return case(model, io(B, K), w, inputs, [first, second], "class", target, class_loss(second, target))


write(__file__, [network("gru"), network("vanilla")])
