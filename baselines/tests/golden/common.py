"""What the scripts share. Weights are drawn in f32 and everything is computed in f64: the values differ from the exact ones
by far less than what an f32 program may be off. Made with torch 2.15 on a CPU: `python3 transformer.py` and so on write
the JSON file of the same name beside the script."""
import json, os
import torch

torch.manual_seed(7)
torch.set_num_threads(1)
VOCABULARY = 7


class Weights(dict):
    """Leaves by the names that the models give them."""

    def new(self, name, *shape, scale=None):
        scale = scale or shape[0] ** -0.5
        self[name] = (torch.randn(*shape) * scale).double().requires_grad_()
        return self[name]


def rms_norm(x, dim=-1):
    return x / (x.square().mean(dim, keepdim=True) + 1e-6).sqrt()


def tokens(streams, steps):
    return torch.randint(VOCABULARY, (streams, steps))


def io(streams, segment, **other):
    return {"input": {"tokens": {"vocabulary": VOCABULARY}}, "outputs": VOCABULARY, "streams": streams, "segment": segment} | other


def class_targets(streams, steps):
    """Classes of which some carry no weight."""
    return tokens(streams, steps), (torch.rand(streams, steps) < 0.8).double()


def class_loss(logits, target):
    classes, weight = target
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), classes, reduction="none")
    return (nll * weight).sum() / weight.sum()


def plain(t):
    flat = t.detach().flatten().tolist()
    return {"shape": list(t.shape), "values": flat if t.dtype == torch.int64 else [float(f"{v:.9g}") for v in flat]}


def case(model, io, weights, inputs, outputs, kind, target, loss):
    """One network: `inputs` one after the other, of which the last has the targets."""
    loss.backward()
    return {
        "model": model,
        "io": io,
        "weights": {n: plain(w) for n, w in weights.items()},
        "inputs": [plain(x) for x in inputs],
        "outputs": [plain(y) for y in outputs],
        "targets": {kind: plain(target[0]), "weight": plain(target[1])},
        "loss": loss.item(),
        "gradients": {n: plain(w.grad) for n, w in weights.items()},
    }


def write(script, cases):
    path = os.path.splitext(os.path.abspath(script))[0] + ".json"
    with open(path, "w") as f:
        f.write(json.dumps(cases, separators=(",", ":")) + "\n")
    print(path, os.path.getsize(path))
