"""Peer: byte-level language modelling with torch.nn.GRU or torch.nn.RNN, as a user would write it.

  python rnn.py --model gru|vanilla [--text FILE --d 128 --layers 4 --seq 256 --batch 8 --steps 60]

With --test FILE it trains with our recipe and prints bits per byte over the whole of that file (common.py).
"""
import torch.nn as nn
from common import VOCABULARY, options, run_on_bytes

a = options(["gru", "vanilla"])


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(VOCABULARY, a.d), nn.Linear(a.d, VOCABULARY)
        kind = dict(gru=nn.GRU, vanilla=nn.RNN)[a.model]
        self.body = kind(a.d, a.d, a.layers, batch_first=True)
        self.state = None

    def forward(self, x):
        y, state = self.body(self.embedding(x), self.state)
        if a.test:
            self.state = state.detach()
        return self.head(y)


run_on_bytes(a, Model())
