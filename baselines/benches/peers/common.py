"""What the peers share: options, the training loop, and one line of JSON in the form of torch_lm.py."""
import argparse, json, resource, time
import torch

VOCABULARY, LEADS, DIAGNOSES = 256, 12, 5


def options(models, extra=lambda p: None):
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True, choices=models)
    p.add_argument("--text")
    p.add_argument("--d", type=int, default=128)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--seq", type=int, default=256)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--threads", type=int, default=2)
    extra(p)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    return a


def bytes_of(a):
    """Batches of bytes and their successors, lane by lane."""
    data = open(a.text, "rb").read() if a.text else bytes((i * 6364136223846793005 % 2**64 >> 57) for i in range(1_000_000))
    data = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    lane = len(data) // a.batch
    lanes = data[: lane * a.batch].view(a.batch, lane)
    for i in range(a.steps):
        o = (i * a.seq) % (lane - a.seq - 1)
        yield lanes[:, o : o + a.seq], lanes[:, o + 1 : o + a.seq + 1]


def train(a, module, batches, loss_of):
    params = list(module.parameters())
    opt = torch.optim.AdamW(params, lr=1e-3)
    times = []
    for x, y in batches:
        t = time.perf_counter()
        loss = loss_of(module(x), y)
        opt.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        loss.item()
        times.append(time.perf_counter() - t)
    w = sorted(times[min(3, len(times) - 1) :])
    print(
        json.dumps(
            dict(
                peer="torch " + torch.__version__,
                model=a.model,
                params=sum(p.numel() for p in params),
                tokens_per_s=round(a.batch * a.seq / w[len(w) // 2], 1),
                peak_rss_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            )
        )
    )
