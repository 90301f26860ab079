"""Golden values of the Transformer, by torch.nn.functional.scaled_dot_product_attention. Keys and values of the segment
before are remembered as they are before rotation; no gradient reaches them."""
import torch
import torch.nn.functional as F
from common import VOCABULARY, Weights, case, class_loss, class_targets, io, rms_norm, tokens, write

B, K, D, HEADS, LAYERS, RATIO = 2, 5, 12, 3, 2, 2
w = Weights()
w.new("embedding.weight", VOCABULARY, D, scale=0.7)
for i in range(LAYERS):
    w.new(f"layers.{i}.attention.qkv", D, 3 * D)
    w.new(f"layers.{i}.attention.output", D, D)
    w.new(f"layers.{i}.mlp.up", D, RATIO * D)
    w.new(f"layers.{i}.mlp.down", RATIO * D, D)
w.new("output.weight", D, VOCABULARY)
w.new("output.bias", VOCABULARY, scale=0.5)


def rotated(x, position):  # [B, heads, steps, d]
    half = x.shape[-1] // 2
    turns = torch.arange(position, position + x.shape[2]).double()[:, None]
    angle = turns * 10_000.0 ** (-torch.arange(half).double() / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


def heads(x):
    return x.view(B, x.shape[1], HEADS, D // HEADS).transpose(1, 2)


def segment(ids, memory):
    """`memory`: per layer `[B, seen, 2D]`, seen being 0 or K; a first segment's positions start at K, as if K steps that
    nobody sees were before it."""
    x = w["embedding.weight"][ids]
    after = []
    for i in range(LAYERS):
        q, kv = (rms_norm(x) @ w[f"layers.{i}.attention.qkv"]).split([D, 2 * D], -1)
        seen = memory[i].shape[1]
        keys, values = torch.cat([memory[i], kv], 1).split(D, -1)
        visible = torch.ones(K, seen + K).tril(seen).bool()
        y = F.scaled_dot_product_attention(rotated(heads(q), K), rotated(heads(keys), K - seen), heads(values), visible)
        x = x + y.transpose(1, 2).reshape(B, K, D) @ w[f"layers.{i}.attention.output"]
        x = x + F.gelu(rms_norm(x) @ w[f"layers.{i}.mlp.up"], approximate="tanh") @ w[f"layers.{i}.mlp.down"]
        after.append(kv.detach())
    return rms_norm(x) @ w["output.weight"] + w["output.bias"], after


inputs, target = [tokens(B, K), tokens(B, K)], class_targets(B, K)
first, memory = segment(inputs[0], [torch.zeros(B, 0, 2 * D).double()] * LAYERS)
second, _ = segment(inputs[1], memory)
model = {"kind": "transformer", "width": D, "layers": LAYERS, "heads": HEADS, "mlp_ratio": RATIO}
write(__file__, [case(model, io(B, K), w, inputs, [first, second], "class", target, class_loss(second, target))])
