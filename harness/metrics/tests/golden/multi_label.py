"""Golden values for multi-label metrics: python multi_label.py > multi_label.json  (scikit-learn 1.7 or later, NumPy).

Random labels of several prevalences, one class per column, with scores that are continuous, rounded to a few levels (most
of them tied) or independent of the labels.
"""

import json

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

rng = np.random.default_rng(20261121)
cases = []
for items, classes in ((12, 2), (60, 5), (200, 12)):
    for levels in (0, 2, 5):
        prevalence = rng.uniform(0.05, 0.95, classes)
        labels = rng.random((items, classes)) < prevalence
        labels[0], labels[1] = True, False  # every class has both
        scores = labels * rng.uniform(0, 2, classes) + rng.normal(size=(items, classes))
        scores = np.round(scores * levels) / levels if levels else np.round(scores, 6)
        scores = scores + 0.0  # no negative zero
        cases.append(
            {
                "name": f"{items} items, {classes} classes, {levels or 'many'} levels",
                "scores": scores.tolist(),
                "labels": labels.tolist(),
                "auc_roc": roc_auc_score(labels, scores, average=None).tolist(),
                "auc_roc_macro": float(roc_auc_score(labels, scores, average="macro")),
                "average_precision": average_precision_score(labels, scores, average=None).tolist(),
                "average_precision_macro": float(average_precision_score(labels, scores, average="macro")),
            }
        )

print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")
