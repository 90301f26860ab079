"""Golden values of the CTC loss and its gradient: torch 2.15 in double precision.

python ctc.py > ctc.json
"""
import json

import torch

T, V = 7, 5
# labels and steps of each utterance: repeats, one that just fits, none at all, one that cannot fit
CASES = [([1, 2, 3], 7), ([2, 2, 4], 6), ([1, 1, 1, 1], 7), ([], 4), ([3, 3, 3], 4), ([4], 1)]

x, values = 7, []
for _ in range(len(CASES) * T * V):
    x = (1103515245 * x + 12345) % 2**31
    values.append(((x >> 16) % 1000) / 100 - 5)
logits = torch.tensor(values, dtype=torch.float64).reshape(len(CASES), T, V).requires_grad_()
labels = torch.tensor([l for case in CASES for l in case[0]], dtype=torch.long)
losses = torch.nn.functional.ctc_loss(
    logits.log_softmax(2).transpose(0, 1), labels, torch.tensor([c[1] for c in CASES]),
    torch.tensor([len(c[0]) for c in CASES]), blank=0, reduction="none", zero_infinity=False)
possible = losses.isfinite()
losses[possible].sum().backward()
print(json.dumps({
    "outputs": V, "steps": T, "cases": [{"labels": l, "steps": t} for l, t in CASES], "logits": values,
    "losses": [v if v != float("inf") else None for v in losses.tolist()],
    # where the labels do not fit, torch's gradient is not a number; it is left out of the comparison
    "gradient": logits.grad.nan_to_num(0.0).flatten().tolist()}))
