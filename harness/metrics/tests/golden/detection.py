"""Golden values for the detection threshold: python detection.py > detection.json  (scikit-learn 1.7 or later, NumPy).

The threshold with the highest F1; of several the highest."""

import json

import numpy as np
from sklearn.metrics import f1_score, precision_recall_curve

rng = np.random.default_rng(20240919)
cases = []


def add(name, scores, labels):
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    thresholds = precision_recall_curve(labels, scores)[2]
    f1 = np.array([f1_score(labels, scores >= t) for t in thresholds])
    best = thresholds[np.flatnonzero(np.isclose(f1, f1.max(), rtol=0, atol=1e-12))[-1]]
    cases.append(
        {
            "name": name,
            "scores": scores.tolist(),
            "labels": labels.tolist(),
            "threshold": float(best),
            "f1": float(f1.max()),
        }
    )


add("perfect", [4, 3, 2, 1], [1, 1, 0, 0])
add("inverted", [1, 2, 3, 4], [1, 1, 0, 0])
add("all scores equal", [0.5] * 6, [1, 0, 0, 1, 0, 0])
for size in (5, 20, 200):
    for prevalence in (0.05, 0.5):
        labels = rng.random(size) < prevalence
        labels[0], labels[1] = True, False
        noise = rng.normal(size=size)
        add(f"{size} items, prevalence {prevalence}", np.round(labels + noise, 6), labels)
        add(f"{size} items, prevalence {prevalence}, many ties", np.round(labels + noise), labels)

print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")
