"""Peer: byte-level language modelling with torch.nn.GRU or torch.nn.RNN, as a user would write it.

  python rnn.py --model gru|vanilla [--text FILE --d 128 --layers 4 --seq 256 --batch 8 --steps 60]
"""
import torch.nn as nn, torch.nn.functional as F
from common import VOCABULARY, bytes_of, options, train

a = options(["gru", "vanilla"])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, a.d), nn.Linear(a.d, VOCABULARY)
        kind = dict(gru=nn.GRU, vanilla=nn.RNN)[a.model]
        self.body = kind(a.d, a.d, a.layers, batch_first=True)

    def forward(self, x):
        return self.head(self.body(self.embedding(x))[0])


train(a, Model(), bytes_of(a), lambda z, y: F.cross_entropy(z.reshape(-1, VOCABULARY), y.reshape(-1)))
