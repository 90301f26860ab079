"""Golden values for the filters: python filter.py > filter.json  (SciPy 1.14 or later, NumPy)."""

import json

import numpy as np
from scipy.signal import butter, sosfilt

rng = np.random.default_rng(20240918)
cases = []
for kind, order, corner, rate in [
    ("low", 2, 24.0, 256.0),
    ("low", 8, 24.0, 256.0),
    ("low", 8, 40.0, 512.0),
    ("high", 2, 0.5, 256.0),
    ("high", 4, 1.0, 200.0),
]:
    x = np.concatenate([[1.0], np.zeros(20), rng.normal(size=60).round(6), np.ones(40)])
    y = sosfilt(butter(order, corner, kind, fs=rate, output="sos"), x)
    cases.append(
        {
            "kind": kind,
            "order": order,
            "corner_hz": corner,
            "rate_hz": rate,
            "input": x.tolist(),
            "output": y.tolist(),
        }
    )
print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")
