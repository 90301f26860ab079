"""Golden values of the mel spectrogram: torchaudio 2.11 in double precision, torch 2.15.

python mel.py > mel.json
"""
import json
import math

import torch

torch.version.cuda = None  # a torchaudio built for another CUDA refuses to load; nothing here runs on a GPU
import torchaudio

torch.set_default_dtype(torch.float64)
RATE = 16000


def samples(n):
    """16-bit samples that any language computes alike: noise from a linear congruence and two tones."""
    x, out = 1, []
    for t in range(n):
        x = (1103515245 * x + 12345) % 2**31
        noise = (x >> 18) - 4096
        out.append(noise + math.floor(6000 * math.sin(0.05 * t)) + math.floor(3000 * math.sin(0.7 * t)))
    return out


def mel(n, bands):
    wave = torch.tensor(samples(n), dtype=torch.get_default_dtype()) / 32768
    transform = torchaudio.transforms.MelSpectrogram(
        sample_rate=RATE, n_fft=400, win_length=400, hop_length=160, f_min=0.0, f_max=8000.0, n_mels=bands,
        window_fn=torch.hann_window, power=2.0, center=True, pad_mode="reflect", norm=None, mel_scale="htk",
    )
    return transform(wave).T.tolist()  # [frames, bands]


print(json.dumps({"cases": [{"samples": n, "bands": b, "mel": mel(n, b)} for n, b in [(1600, 80), (1233, 23)]]}))
