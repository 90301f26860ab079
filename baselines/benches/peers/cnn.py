"""Peer: the two convolutional networks in PyTorch, as a user would write them: the same layers, nn.Conv1d.

  python cnn.py --model causal|resnet [--text FILE --d 128 --layers 4 --seq 256 --batch 8 --steps 60 --norm square|layer]

causal: bytes; with --test FILE trained with our recipe, for bits per byte over the whole of that file (common.py).
resnet: random recordings of `seq` frames of 12 leads with 5 labels, `layers` blocks in each of 4 stages.
The norm over channels in PyTorch's layout [B, C, T] can be had by squares along the channels, or by F.rms_norm between
two transpositions (the default: it is the faster one).
"""
import sys
import torch, torch.nn as nn, torch.nn.functional as F
from common import DIAGNOSES, LEADS, VOCABULARY, options, run_on_bytes, train

SQUARE = "--norm=square" in sys.argv
sys.argv = [w for w in sys.argv if not w.startswith("--norm=")]
a = options(["causal", "resnet"])


def norm(x):  # [B, C, T]
    if SQUARE:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
    return F.rms_norm(x.transpose(1, 2), x.shape[1:2], eps=1e-6).transpose(1, 2)


class Causal(nn.Module):
    def __init__(self, taps=3):
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, a.d), nn.Linear(a.d, VOCABULARY)
        self.pads = [(taps - 1) * 2**i for i in range(a.layers)]
        conv = lambda i: nn.Conv1d(a.d, a.d, taps, dilation=2**i)
        self.blocks = nn.ModuleList([nn.ModuleList([conv(i), conv(i)]) for i in range(a.layers)])

    def forward(self, x):
        x = self.embedding(x).transpose(1, 2)
        for pad, (first, second) in zip(self.pads, self.blocks):
            h = first(F.pad(F.relu(norm(x)), (pad, 0)))
            x = x + second(F.pad(F.relu(norm(h)), (pad, 0)))
        return self.head(norm(x).transpose(1, 2))


class Block(nn.Module):
    def __init__(self, inputs, outputs, taps, halves):
        super().__init__()
        stride = 2 if halves else 1
        self.first = nn.Conv1d(inputs, outputs, taps, stride=stride, padding=taps // 2)
        self.second = nn.Conv1d(outputs, outputs, taps, padding=taps // 2)
        self.halves, self.shortcut = halves, nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x):
        beside = self.shortcut(F.avg_pool1d(x, 2, ceil_mode=True) if self.halves else x)
        return beside + self.second(F.relu(norm(self.first(F.relu(norm(x))))))


class Resnet(nn.Module):
    def __init__(self, taps=5):
        super().__init__()
        w = a.d
        shapes = [(LEADS, w // 2, 2), (w // 2, w // 2, 1), (w // 2, w, 1)]
        self.stem = nn.ModuleList([nn.Conv1d(i, o, taps, stride=s, padding=taps // 2) for i, o, s in shapes])
        blocks, inputs = [], w
        for stage in range(4):
            for i in range(a.layers):
                blocks.append(Block(inputs, w << stage, taps, stage > 0 and i == 0))
                inputs = w << stage
        self.blocks, self.head = nn.Sequential(*blocks), nn.Linear(2 * inputs, DIAGNOSES)

    def forward(self, x):
        x = x.transpose(1, 2)
        for i, c in enumerate(self.stem):
            x = c(F.relu(norm(x)) if i else x)
        x = F.relu(norm(self.blocks(F.max_pool1d(x, 3, 2, 1))))
        return self.head(torch.cat([x.mean(2), x.amax(2)], 1))


if a.model == "causal":
    run_on_bytes(a, Causal())
else:
    draw = lambda: (torch.randn(a.batch, a.seq, LEADS), torch.rand(a.batch, DIAGNOSES).round())
    train(a, Resnet(), (draw() for _ in range(a.steps)), F.binary_cross_entropy_with_logits)
