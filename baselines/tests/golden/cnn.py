"""Golden values of the CNN, by torch.nn.functional.conv1d and pooling. The causal network's second segment sees detached
values of the first; the residual network gets each recording alone, without padding, while ours get a padded batch."""
import torch
import torch.nn.functional as F
from common import VOCABULARY, Weights, case, class_loss, class_targets, io, rms_norm, tokens, write


def prepared(x):  # [B, C, T]
    return F.relu(rms_norm(x, 1))


def conv(w, name, x, taps, **other):
    """`w` is `[taps · I, O]` for us and `[O, I, taps]` for PyTorch."""
    weight, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    return F.conv1d(x, weight.view(taps, -1, weight.shape[1]).permute(2, 1, 0), bias, **other)


def new_conv(w, name, inputs, outputs, taps):
    w.new(f"{name}.weight", taps * inputs, outputs)
    w.new(f"{name}.bias", outputs, scale=0.5)


def causal(B=2, K=7, D=6, layers=3, taps=3, cycle=2):
    w = Weights()
    w.new("embedding.weight", VOCABULARY, D, scale=0.7)
    parts = [(f"layers.{i}.{part}", 2 ** (i % cycle)) for i in range(layers) for part in ("first", "second")]
    for name, _ in parts:
        new_conv(w, name, D, D, taps)
    w.new("output.weight", D, VOCABULARY)
    w.new("output.bias", VOCABULARY, scale=0.5)

    def segment(ids, before):
        x = w["embedding.weight"][ids].transpose(1, 2)
        after = {}
        for i in range(0, len(parts), 2):
            h = x
            for name, dilation in parts[i : i + 2]:
                reach = (taps - 1) * dilation
                seen = torch.cat([before.get(name, torch.zeros(B, D, reach).double()), h], 2)
                after[name] = seen[:, :, -reach:].detach()
                h = conv(w, name, prepared(seen), taps, dilation=dilation)
            x = x + h
        return rms_norm(x, 1).transpose(1, 2) @ w["output.weight"] + w["output.bias"], after

    inputs, target = [tokens(B, K), tokens(B, K)], class_targets(B, K)
    first, state = segment(inputs[0], {})
    second, _ = segment(inputs[1], state)
    model = {"kind": "cnn", "family": "causal", "width": D, "layers": layers, "kernel": taps, "dilation_cycle": cycle}
    return case(model, io(B, K), w, inputs, [first, second], "class", target, class_loss(second, target))


def resnet(expansion, lengths=(29, 40, 17), K=40, frame=3, width=4, stages=(1, 2), taps=5, labels=2):
    w = Weights()
    stem = [(frame, width // 2), (width // 2, width // 2), (width // 2, width)]
    for i, (inputs, outputs) in enumerate(stem):
        new_conv(w, f"stem.{i}", inputs, outputs, taps)
    blocks, inputs = [], width
    for stage, count in enumerate(stages):
        for i in range(count):
            name, inner, stride = f"stages.{stage}.{i}", width << stage, 2 if stage > 0 and i == 0 else 1
            outputs = inner * expansion
            if expansion == 1:
                branch = [(inputs, inner, taps, stride), (inner, outputs, taps, 1)]
            else:
                branch = [(inputs, inner, 1, 1), (inner, inner, taps, stride), (inner, outputs, 1, 1)]
            for j, (a, b, k, _) in enumerate(branch):
                new_conv(w, f"{name}.branch.{j}", a, b, k)
            if inputs != outputs:
                new_conv(w, f"{name}.shortcut", inputs, outputs, 1)
            blocks.append((name, branch, stride, inputs != outputs))
            inputs = outputs
    w.new("output.weight", 2 * inputs, labels)
    w.new("output.bias", labels, scale=0.5)

    def answer(x):  # [T, F] → [O]
        x = x.T[None]
        for i in range(len(stem)):
            x = conv(w, f"stem.{i}", prepared(x) if i else x, taps, stride=1 if i else 2, padding=taps // 2)
        x = F.max_pool1d(x, 3, 2, 1)
        for name, branch, stride, mapped in blocks:
            beside = F.avg_pool1d(x, 2, ceil_mode=True) if stride == 2 else x
            if mapped:
                beside = conv(w, f"{name}.shortcut", beside, 1)
            for j, (_, _, k, s) in enumerate(branch):
                x = conv(w, f"{name}.branch.{j}", prepared(x), k, stride=s, padding=k // 2)
            x = x + beside
        x = prepared(x)[0]
        return torch.cat([x.mean(1), x.amax(1)]) @ w["output.weight"] + w["output.bias"]

    streams = len(lengths)
    x = torch.zeros(streams, K, frame).double()
    for s, n in enumerate(lengths):
        x[s, :n] = torch.randn(n, frame).double()
    answers = torch.stack([answer(x[s, :n]) for s, n in enumerate(lengths)])
    label, weight = (torch.rand(streams, labels) < 0.5).double(), torch.zeros(streams, K).double()
    for s, n in enumerate(lengths):
        weight[s, n - 1] = 1.0
    loss = F.binary_cross_entropy_with_logits(answers, label)
    model = {"kind": "cnn", "family": "resnet", "width": width, "kernel": taps, "stages": list(stages), "expansion": expansion}
    shapes = io(streams, K, input={"frames": {"width": frame}}, outputs=labels)
    outputs = [answers[:, None].expand(streams, K, labels)]
    return case(model, shapes, w, [x], outputs, "label", (label, weight), loss)


write(__file__, [causal(), resnet(1), resnet(2)])
