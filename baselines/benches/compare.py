"""Ours and the PyTorch peers in turn, with allocators that keep their memory and the same threads: prints tokens per second, their ratio
and peak memory. Absolute figures drift by tens of per cent on a shared machine; the ratio of runs in turn does not.

  cargo bench -p baselines --no-run && python3 baselines/benches/compare.py --bench target/release/deps/train-HASH \
      [--models transformer,lstm,gru,mamba,snn,causal,resnet] [--sizes 128x256,256x512] [--rounds 3] [--text FILE]
"""
import argparse, json, os, pathlib, statistics, subprocess, sys

PEERS = pathlib.Path(__file__).parent / "peers"
SCRIPT = dict(transformer="lm.py", mamba="lm.py", snn="lm.py", lstm="lm.py", gru="rnn.py", vanilla="rnn.py", causal="cnn.py", resnet="cnn.py")
# large blocks are kept instead of being given back to the system, without which PyTorch is up to 30 times slower here
ALLOCATOR = dict(MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_="100000000000")
# as the program sets it: candle's own threads would spin beside ours, and its allocator keeps large blocks too
OURS = dict(CANDLE_NUM_THREADS="1", MIMALLOC_PURGE_DELAY="-1")
# updates of one run: a median over a few seconds of the slower side
UPDATES = dict(mamba=6, snn=12, resnet=12)

p = argparse.ArgumentParser()
p.add_argument("--bench", required=True)
p.add_argument("--models", default="transformer,lstm,gru,mamba,snn,causal,resnet")
p.add_argument("--sizes", default="128x256")
p.add_argument("--rounds", type=int, default=3)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--text")
a = p.parse_args()


def run(command):
    env = dict(os.environ, **ALLOCATOR, **OURS, RAYON_NUM_THREADS=str(a.threads), OMP_NUM_THREADS=str(a.threads))
    out = subprocess.run(command, env=env, capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{out.stderr}")
    return json.loads(out.stdout.strip().splitlines()[-1])


print(f"{a.threads} threads; training tokens (resnet: frames) per second, median of {a.rounds} rounds in turn")
print("| model | width × steps | parameters | ours | peer's parameters | peer | ours / peer | share of floor | peak RSS MiB, ours | peer |")
print("|---|---|---|---|---|---|---|---|---|---|")
for size in a.sizes.split(","):
    width, steps = size.split("x")
    for model in a.models.split(","):
        updates = UPDATES.get(model, 24)
        options = ["--model", model, "--d", width, "--seq", steps, "--steps", str(updates)]
        options += ["--layers", "2" if model == "resnet" else "4"] + (["--text", a.text] if a.text else [])
        ours, peer = [], []
        for _ in range(a.rounds):
            ours.append(run([a.bench, *options]))
            peer.append(run([sys.executable, str(PEERS / SCRIPT[model]), *options, "--threads", str(a.threads)]))
        rate = lambda runs: statistics.median(r["tokens_per_s"] for r in runs)
        ratio = statistics.median(o["tokens_per_s"] / q["tokens_per_s"] for o, q in zip(ours, peer))
        shares = [o["share_of_floor"] for o in ours]
        floor = "–" if None in shares else f"{statistics.median(shares):.2f}"
        print(
            f"| {model} | {width} × {steps} | {ours[0]['params']:,} | {rate(ours):,.0f} | {peer[0]['params']:,} | {rate(peer):,.0f} "
            f"| {ratio:.2f} | {floor} | {ours[0]['peak_rss_mib']} | {peer[0]['peak_rss_mib']} |",
            flush=True,
        )
