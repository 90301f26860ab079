"""What the peers share: options, the training loop, and one line of JSON in the form of torch_lm.py."""
import argparse, json, math, resource, time
import torch, torch.nn.functional as F

VOCABULARY, LEADS, DIAGNOSES = 256, 12, 5


def options(models):
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True, choices=models)
    p.add_argument("--text")
    p.add_argument("--d", type=int, default=128)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--seq", type=int, default=256)
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--steps", type=int, default=60)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--test")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
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


def quality(a, model):
    """Trains over the text as often as --steps asks with our recipe (warm-up over 3 % of the updates, cosine to 5 %, AdamW
    0.9/0.99, decay 0.01 of matrices), then scores the whole test file, the state carried along where the model has one."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [dict(params=matrices, weight_decay=0.01), dict(params=others, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=a.lr, betas=(0.9, 0.99))
    warmup = int(0.03 * a.steps)

    def factor(i):
        if i < warmup:
            return (i + 1) / warmup
        return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (i - warmup) / max(1, a.steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for x, y in bytes_of(a):
        loss = loss_of(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    text = torch.frombuffer(bytearray(open(a.test, "rb").read()), dtype=torch.uint8).long()
    lanes, nats, scored = 32, 0.0, 0
    lane = (len(text) - 1) // lanes
    inputs, targets = text[: lane * lanes].view(lanes, lane), text[1 : lane * lanes + 1].view(lanes, lane)
    model.state = None
    with torch.no_grad():
        for at in range(0, lane, a.seq):
            x, y = inputs[:, at : at + a.seq], targets[:, at : at + a.seq]
            nats += loss_of(model(x), y).item() * y.numel()
            scored += y.numel()
    params = sum(p.numel() for p in model.parameters())
    bits = nats / scored / math.log(2)
    print(json.dumps(dict(peer="torch " + torch.__version__, model=a.model, params=params, bits_per_byte=round(bits, 4), scored=scored)))


def loss_of(z, y):
    """Of bytes."""
    return F.cross_entropy(z.reshape(-1, VOCABULARY), y.reshape(-1))


def run_on_bytes(a, model):
    """What --test asks for, or the speed."""
    if a.test:
        quality(a, model)
    else:
        train(a, model, bytes_of(a), loss_of)
