"""Golden values of the Transformer, by torch.nn.functional.scaled_dot_product_attention. The causal one remembers keys and values
of the segment before as they are before rotation; no gradient reaches them. The other one sees whole recordings, of
which one ends in padding."""
import torch
import torch.nn.functional as F
from common import VOCABULARY, Weights, case, class_loss, class_targets, io, rms_norm, tokens, write

B, K, D, HEADS, LAYERS, RATIO = 2, 5, 12, 3, 2, 2


def layers(w):
    for i in range(LAYERS):
        w.new(f"layers.{i}.attention.qkv", D, 3 * D)
        w.new(f"layers.{i}.attention.output", D, D)
        w.new(f"layers.{i}.mlp.up", D, RATIO * D)
        w.new(f"layers.{i}.mlp.down", RATIO * D, D)


def rotated(x, position):  # [B, heads, steps, d]
    half = x.shape[-1] // 2
    turns = torch.arange(position, position + x.shape[2]).double()[:, None]
    angle = turns * 10_000.0 ** (-torch.arange(half).double() / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def heads(x):
    return x.view(x.shape[0], x.shape[1], HEADS, D // HEADS).transpose(1, 2)


def body(w, x, memory, visible):
    """`memory`: per layer `[B, seen, 2D]`; `visible` of a query and the keys from the first of `memory` on."""
    steps, after = x.shape[1], []
    for i in range(LAYERS):
        q, kv = (rms_norm(x) @ w[f"layers.{i}.attention.qkv"]).split([D, 2 * D], -1)
        seen = memory[i].shape[1]
        keys, values = torch.cat([memory[i], kv], 1).split(D, -1)
        y = F.scaled_dot_product_attention(rotated(heads(q), K), rotated(heads(keys), K - seen), heads(values), visible)
        x = x + y.transpose(1, 2).reshape(x.shape[0], steps, D) @ w[f"layers.{i}.attention.output"]
        x = x + F.gelu(rms_norm(x) @ w[f"layers.{i}.mlp.up"], approximate="tanh") @ w[f"layers.{i}.mlp.down"]
        after.append(kv.detach())
    return rms_norm(x) @ w["output.weight"] + w["output.bias"], after


def causal():
    w = Weights()
    w.new("embedding.weight", VOCABULARY, D, scale=0.7)
    layers(w)
    w.new("output.weight", D, VOCABULARY)
    w.new("output.bias", VOCABULARY, scale=0.5)

    def segment(ids, memory):
        """A first segment's positions start at K, as if K steps that nobody sees were before it."""
        visible = torch.ones(K, memory[0].shape[1] + K).tril(memory[0].shape[1]).bool()
        return body(w, w["embedding.weight"][ids], memory, visible)

    inputs, target = [tokens(B, K), tokens(B, K)], class_targets(B, K)
    first, memory = segment(inputs[0], [torch.zeros(B, 0, 2 * D).double()] * LAYERS)
    second, _ = segment(inputs[1], memory)
    model = {"kind": "transformer", "width": D, "layers": LAYERS, "heads": HEADS, "mlp_ratio": RATIO}
    return case(model, io(B, K), w, inputs, [first, second], "class", target, class_loss(second, target))


def recordings():
    frame, labels, lengths = 3, 2, [K, K - 2]
    w = Weights()
    w.new("input.weight", frame, D)
    w.new("input.bias", D, scale=0.5)
    layers(w)
    w.new("output.weight", D, labels)
    w.new("output.bias", labels, scale=0.5)
    x = torch.zeros(B, K, frame).double()
    for s, n in enumerate(lengths):
        x[s, :n] = torch.randn(n, frame).double()
    prepared, none = x @ w["input.weight"] + w["input.bias"], [torch.zeros(1, 0, 2 * D).double()] * LAYERS
    outputs = []
    for s, n in enumerate(lengths):
        y = body(w, prepared[s : s + 1], none, (torch.arange(K) < n).expand(K, K))[0][0]
        alone = body(w, prepared[s : s + 1, :n], none, None)[0][0]
        torch.testing.assert_close(y[:n], alone, rtol=1e-12, atol=1e-12)
        outputs.append(y)
    outputs = torch.stack(outputs)
    label, weight = (torch.rand(B, labels) < 0.5).double(), torch.zeros(B, K).double()
    for s, n in enumerate(lengths):
        weight[s, n - 1] = 1.0
    last = torch.stack([outputs[s, n - 1] for s, n in enumerate(lengths)])
    loss = F.binary_cross_entropy_with_logits(last, label)
    model = {"kind": "transformer", "width": D, "layers": LAYERS, "heads": HEADS, "mlp_ratio": RATIO, "causal": False}
    shapes = io(B, K, input={"frames": {"width": frame}}, outputs=labels)
    return case(model, shapes, w, [x], [outputs], "label", (label, weight), loss)


write(__file__, [causal(), recordings()])
