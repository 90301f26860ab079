"""Golden values for the ranking metrics: python ranking.py > ranking.json  (scikit-learn 1.7 or later, NumPy)."""

import json

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

rng = np.random.default_rng(20240917)
cases = []


def add(name, scores, labels):
    scores, labels = np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool)
    if labels.all() or not labels.any():
        raise SystemExit(f"{name}: needs both classes")
    cases.append(
        {
            "name": name,
            "scores": scores.tolist(),
            "labels": labels.tolist(),
            "auc_roc": float(roc_auc_score(labels, scores)),
            "average_precision": float(average_precision_score(labels, scores)),
        }
    )


add("documentation example", [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
add("all scores equal", [0.5] * 6, [1, 0, 0, 1, 0, 0])
add("perfect", [4, 3, 2, 1], [1, 1, 0, 0])
add("inverted", [1, 2, 3, 4], [1, 1, 0, 0])
for size in (5, 20, 100):
    for prevalence in (0.1, 0.5, 0.9):
        labels = rng.random(size) < prevalence
        labels[0], labels[1] = True, False
        noise = rng.normal(size=size)
        add(f"{size} items, prevalence {prevalence}", np.round(labels + noise, 6), labels)
        add(f"{size} items, prevalence {prevalence}, many ties", np.round(labels + noise), labels)

print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")
