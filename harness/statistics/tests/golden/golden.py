"""Golden values: python golden.py > golden.json  (scipy 1.17.1, statsmodels 0.15.0, rliable 1.2.0, NumPy 2.4).

rliable needs only its metrics.py: install it with --no-deps. Its profile and its resampling are written out below as its
library.py has them, since that imports arch.
"""

import json

import numpy as np
from rliable import metrics as rl
from scipy import special, stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

rng = np.random.default_rng(20261127)
out = {}

out["t_two_sided"] = [
    {"level": level, "freedom": df, "value": float(stats.t.ppf((1 + level) / 2, df))}
    for level in (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
    for df in (1, 2, 3, 4, 7, 10, 29, 100, 999)
]
out["t_two_sided_of"] = [
    {"level": level, "freedom": df, "value": float(stats.t.ppf((1 + level) / 2, df))}
    for level in (0.5, 0.95, 0.999)
    for df in (1.0, 1.3, 2.0, 3.75, 9.0, 40.2, 1000.5)
]
out["t_p_value"] = [
    {"t": t, "freedom": df, "value": float(2 * stats.t.sf(t, df))}
    for t in (0.0, 1e-3, 0.3, 1.0, 2.5, 7.0, 40.0)
    for df in (1, 1.7, 2, 3.25, 5, 9, 30, 250.5, 5000)
]
out["normal_cdf"] = [
    {"x": x, "value": float(stats.norm.cdf(x))} for x in (-12.0, -6.5, -3.1, -1.96, -0.4, 0.0, 0.7, 2.9, 3.3, 5.0)
]
out["normal_quantile"] = [
    {"p": p, "value": float(special.ndtri(p))} for p in (1e-14, 1e-6, 0.025, 0.3, 0.5, 0.8, 0.975, 0.9999)
]
out["noncentral_t"] = [
    {"t": t, "freedom": df, "shift": shift, "value": float(stats.nct.cdf(t, df, shift))}
    for t in (-2.0, 0.5, 2.0, 4.0)
    for df in (1, 2, 5, 19, 200)
    for shift in (0.0, 0.7, 2.5, 5.0)
]

out["t_interval"] = []
for n in (2, 3, 5, 8, 12):
    values = rng.normal(3.0, 0.7, n)
    for level in (0.9, 0.95, 0.99):
        low, high = stats.t.interval(level, n - 1, loc=values.mean(), scale=stats.sem(values))
        out["t_interval"].append(
            {"values": values.tolist(), "level": level, "low": float(low), "high": float(high)}
        )

out["paired"] = []
for n, ties in ((2, 0), (3, 0), (5, 0), (8, 0), (12, 0), (6, 2), (10, 1)):
    a, b = rng.normal(0.4, 1.0, n), rng.normal(0.0, 0.5, n)
    if ties:  # to halves: equal differences, and some of zero
        a, b = np.round(a * ties) / ties, np.round(b * ties) / ties
    d = a - b

    def two_sided(statistic, d=d):
        return stats.permutation_test(
            (d,), statistic, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
        ).pvalue

    kept = d[d != 0]
    ranks = stats.rankdata(np.abs(kept))  # midranks; zeros left out
    if ties:
        signs = (np.array(np.meshgrid(*[[0, 1]] * len(kept))).reshape(len(kept), -1).T).astype(float)
        sums, w = signs @ ranks, ranks[kept > 0].sum()
        wilcoxon = min(1.0, 2 * min((sums <= w + 1e-9).mean(), (sums >= w - 1e-9).mean()))
    else:
        wilcoxon = stats.wilcoxon(a, b, method="exact").pvalue
    out["paired"].append(
        {
            "a": a.tolist(),
            "b": b.tolist(),
            "t": float(stats.ttest_rel(a, b).pvalue),
            "sign_flip": float(two_sided(lambda x, axis=-1: np.mean(x, axis=axis))),
            "wilcoxon": float(wilcoxon),
        }
    )

out["welch"] = []
for n, m in ((2, 3), (3, 3), (5, 8), (12, 4)):
    a, b = rng.normal(0.8, 1.0, n), rng.normal(0.0, 0.3, m)
    out["welch"].append(
        {"a": a.tolist(), "b": b.tolist(), "value": float(stats.ttest_ind(a, b, equal_var=False).pvalue)}
    )

out["adjusted"] = []
for p in (
    [0.01],
    [0.01, 0.04, 0.03, 0.005],
    [0.02, 0.02, 0.5, 0.9, 0.001, 0.02],
    rng.uniform(0, 1, 40).tolist(),
    (rng.uniform(0, 1, 25) ** 4).tolist(),
):
    out["adjusted"].append(
        {
            "p": p,
            "holm": multipletests(p, method="holm")[1].tolist(),
            "benjamini_hochberg": multipletests(p, method="fdr_bh")[1].tolist(),
        }
    )

out["power"] = [
    {"effect": d, "n": n, "value": float(TTestPower().power(d, n, 0.05))}
    for d in (0.2, 0.8, 1.5, 3.0)
    for n in (2, 3, 5, 10, 40)
]
# beyond about 30 degrees of freedom and large shifts scipy's distribution gives up
out["power"] = [case for case in out["power"] if np.isfinite(case["value"])]
out["seeds"] = []
for d in (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0):
    for power in (0.8, 0.9):
        n = float(TTestPower().solve_power(effect_size=d, alpha=0.05, power=power))
        out["seeds"].append({"effect": d, "power": power, "n": int(np.ceil(n))})

# BCa: resamples by a generator that is easily written again, so that what is done with them can be compared digit by digit
out["bca"] = []
for n, skew in ((12, False), (15, True), (30, True)):
    values = rng.lognormal(0, 1, n) if skew else rng.normal(0, 1, n)
    state, draws = 12345, []
    for _ in range(2000):
        total = 0.0
        for _ in range(n):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            total += values[(state >> 33) % n]
        draws.append(total / n)
    draws = np.array(draws)
    mean = values.mean()
    z0 = special.ndtri((np.sum(draws < mean) + np.sum(draws <= mean)) / 2 / len(draws))
    jack = (values.sum() - values) / (n - 1)
    u = (n - 1) * (jack.mean() - jack)
    a = np.sum(u**3) / (6 * np.sum(u**2) ** 1.5)
    z = special.ndtri(np.array([0.025, 0.975]))
    tails = special.ndtr(z0 + (z0 + z) / (1 - a * (z0 + z)))
    low, high = np.percentile(draws, 100 * tails)
    scipy = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=400_000, batch=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    percentile = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=400_000, batch=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    out["bca"].append(
        {
            "values": values.tolist(),
            "acceleration": float(a),
            "low": float(low),
            "high": float(high),
            "scipy": [float(scipy.low), float(scipy.high)],
            "percentile": [float(percentile.low), float(percentile.high)],
        }
    )

# rliable: scores are runs by tasks there, tasks by runs here
out["aggregate"] = []
for runs, tasks in ((3, 2), (5, 4), (10, 7)):
    x, y = rng.normal(0.6, 0.3, (runs, tasks)), rng.normal(0.5, 0.3, (runs + 1, tasks))
    x, y = np.round(x, 1), np.round(y, 1)  # with ties
    taus = [0.0, 0.3, 0.5, 0.6, 1.0]
    reps = 20_000
    stratified = [x[rng.integers(0, runs, x.shape), np.arange(tasks)] for _ in range(reps)]
    other = [y[rng.integers(0, runs + 1, y.shape), np.arange(tasks)] for _ in range(reps)]

    def improvement(a, b):  # rliable's, for many pairs: its own calls scipy for each task
        return np.mean([((a[:, None, t] > b[None, :, t]) + 0.5 * (a[:, None, t] == b[None, :, t])).mean() for t in range(tasks)])

    value = float(rl.probability_of_improvement(x, y))
    assert abs(value - improvement(x, y)) < 1e-12
    iqms = [rl.aggregate_iqm(s) for s in stratified]
    improvements = [improvement(a, b) for a, b in zip(stratified[:5000], other)]
    profiles = np.array([[np.mean(s > tau) for tau in taus] for s in stratified])
    out["aggregate"].append(
        {
            "x": x.T.tolist(),
            "y": y.T.tolist(),
            "iqm": float(rl.aggregate_iqm(x)),
            "iqm_interval": np.percentile(iqms, [2.5, 97.5]).tolist(),
            "improvement": value,
            "improvement_interval": np.percentile(improvements, [2.5, 97.5]).tolist(),
            "taus": taus,
            "profile": [float(np.mean(x > tau)) for tau in taus],
            "profile_mean_scores": [float(np.mean(x.mean(axis=0) > tau)) for tau in taus],
            "profile_low": np.percentile(profiles, 2.5, axis=0).tolist(),
            "profile_high": np.percentile(profiles, 97.5, axis=0).tolist(),
        }
    )

print(json.dumps(out, allow_nan=False, indent=None, separators=(",", ":")))
