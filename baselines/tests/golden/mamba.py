"""Golden values of Mamba: the reference form of the authors' block (selective_scan_ref with delta_softplus, causal
convolution, gate) in torch.nn modules and autograd, norms without gain."""
import torch
import torch.nn.functional as F
from common import VOCABULARY, Weights, case, class_loss, class_targets, io, rms_norm, tokens, write

# more than one block of kept states and than one register of channels
B, K, D, H, N, R, TAPS, LAYERS = 2, 19, 6, 12, 3, 2, 4, 2
w = Weights()
w.new("embedding.weight", VOCABULARY, D, scale=0.7)
for i in range(LAYERS):
    w.new(f"layers.{i}.input.weight", D, 2 * H)
    w.new(f"layers.{i}.conv.weight", TAPS, H)
    w.new(f"layers.{i}.conv.bias", H, scale=0.3)
    w.new(f"layers.{i}.select.weight", H, R + 2 * N)
    w.new(f"layers.{i}.step.weight", R, H)
    w.new(f"layers.{i}.step.bias", H, scale=1.0)
    w.new(f"layers.{i}.log_decay", H, N, scale=1.0)
    w.new(f"layers.{i}.skip", H, scale=1.0)
    w.new(f"layers.{i}.output.weight", H, D)
w.new("output.weight", D, VOCABULARY)
w.new("output.bias", VOCABULARY, scale=0.5)


def block(i, x, before):
    p = {name: w[f"layers.{i}.{name}"] for name in
         ("input.weight", "conv.weight", "conv.bias", "select.weight", "step.weight", "step.bias", "log_decay", "skip", "output.weight")}
    v, z = F.linear(rms_norm(x), p["input.weight"].T).chunk(2, -1)
    v = torch.cat([before[0], v.transpose(1, 2)], 2)  # [B, H, TAPS - 1 + K]
    u = F.silu(F.conv1d(v, p["conv.weight"].T[:, None], p["conv.bias"], groups=H)).transpose(1, 2)
    dt, b, c = F.linear(u, p["select.weight"].T).split([R, N, N], -1)
    dt = F.softplus(F.linear(dt, p["step.weight"].T, p["step.bias"]))
    decay = torch.exp(torch.einsum("bkh,hn->bkhn", dt, -torch.exp(p["log_decay"])))
    given = torch.einsum("bkh,bkn,bkh->bkhn", dt, b, u)
    h, ys = before[1], []
    for t in range(x.shape[1]):
        h = decay[:, t] * h + given[:, t]
        ys.append(torch.einsum("bhn,bn->bh", h, c[:, t]))
    y = (torch.stack(ys, 1) + u * p["skip"]) * F.silu(z)
    return x + F.linear(y, p["output.weight"].T), (v[..., -(TAPS - 1):].detach(), h.detach())


def segment(ids, state):
    x, after = w["embedding.weight"][ids], []
    for i in range(LAYERS):
        x, s = block(i, x, state[i])
        after.append(s)
    return rms_norm(x) @ w["output.weight"] + w["output.bias"], after


state = [(torch.zeros(B, H, TAPS - 1).double(), torch.zeros(B, H, N).double()) for _ in range(LAYERS)]
inputs, target = [tokens(B, K), tokens(B, K)], class_targets(B, K)
first, state = segment(inputs[0], state)
second, _ = segment(inputs[1], state)
model = {"kind": "mamba", "width": D, "layers": LAYERS, "expand": H // D, "states": N, "taps": TAPS, "rank": R}
write(__file__, [case(model, io(B, K), w, inputs, [first, second], "class", target, class_loss(second, target))])
