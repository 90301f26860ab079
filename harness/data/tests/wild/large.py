"""Inputs of full size: what opening them takes.

    pip install numpy soundfile
    python large.py --harness ../../../../target/release/harness --folder /somewhere/with/5/GB [--only text,eeg,speech]

Makes a stand-in of each dataset in its published layout and size, opens it with `harness plan` (which reads, divides, counts and, for
speech, computes spectrograms), and prints wall-clock time and the highest resident memory of the process. What it made is removed.

    text     540 MB of tokens in words, of about 260,000 types in 1.5 million lines (WikiText-103: 267,735 and 1.8 million); bar: 1.5 times the bytes of the tokens
    eeg      one recording of 40 hours with 23 channels at 256 Hz, 1.7 GB; bar: 512 MiB whatever its length, of which 256 MiB are the cache of
             decoded blocks, since recordings are streamed
    speech   10,000 utterances of 3 s; bar: 1 GiB, since spectrograms are on disk
"""

import argparse
import os
import pathlib
import shutil
import time

import numpy as np

MIB = 1 << 20


def text(folder):
    """Words by Zipf's law over 267,735 types; 60 words a line; a heading every 30 lines."""
    root = folder / "wikitext-103"
    root.mkdir(parents=True)
    rng = np.random.default_rng(1)
    types, sizes = 267_735, {"train": 540_000_000, "valid": 1_100_000, "test": 1_300_000}
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    lengths = np.clip(rng.poisson(2 + np.log2(2 + np.arange(types)) / 2.6), 1, 14)
    flat = "".join(rng.choice(letters, size=int(lengths.sum())))
    ends = np.cumsum(lengths)
    words = [flat[a:b] for a, b in zip(ends - lengths, ends)]
    share = 1 / (np.arange(types) + 2.7)
    bounds = np.cumsum(share / share.sum())
    for split, size in sizes.items():
        with open(root / f"wiki.{split}.tokens", "w") as file:
            written, lines, blocks = 0, 0, []
            while written < size:
                if written > 60_000_000:  # the rest repeats it
                    written += file.write(blocks[lines % len(blocks)])
                    lines += 1
                    continue
                drawn = np.searchsorted(bounds, rng.random(60 * 5000))
                drawn = np.minimum(drawn, types - 1).reshape(-1, 60)
                chunk = []
                for row in drawn:
                    if lines % 30 == 0:
                        chunk.append(f" \n = {words[row[0]]} = \n \n")
                    chunk.append(" " + " ".join([words[i] for i in row]) + " \n")
                    lines += 1
                blocks.append("".join(chunk))
                written += file.write(blocks[-1])
    return root, (root / "wiki.train.tokens").stat().st_size


TEXT = "{kind: language, vocabulary: word}"


def eeg(folder):
    """Recordings in 16 bits; the long one belongs to the training part."""
    root = folder / "chb-mit"
    names = ("FP1-F7 F7-T7 T7-P7 P7-O1 FP1-F3 F3-C3 C3-P3 P3-O1 FP2-F4 F4-C4 C4-P4 P4-O2 FP2-F8 F8-T8 T8-P8 P8-O2 FZ-CZ CZ-PZ "
             "P7-T7 T7-FT9 FT9-FT10 FT10-T8 T8-P8").split()
    rng, records = np.random.default_rng(1), []
    for case, seconds in (("chb01", 40 * 3600), ("chb02", 600), ("chb03", 600)):
        (root / case).mkdir(parents=True)
        name = f"{case}/{case}_01.edf"
        records.append(name)

        def field(values, size):
            return "".join(str(value).ljust(size)[:size] for value in values)

        n = len(names)
        header = field(["0"], 8) + " " * 160 + "01.01.00" + "00.00.00" + field([256 * (n + 1)], 8) + " " * 44
        header += field([seconds], 8) + field([1], 8) + field([n], 4) + field(names, 16) + " " * 80 * n + field(["uV"] * n, 8)
        header += field([-800] * n, 8) + field([800] * n, 8) + field([-2048] * n, 8) + field([2047] * n, 8) + " " * 80 * n
        header += field([256] * n, 8) + " " * 32 * n
        block = rng.integers(-300, 300, size=600 * n * 256, dtype=np.int16).tobytes()
        with open(root / name, "wb") as file:
            file.write(header.encode())
            for _ in range(seconds // 600):
                file.write(block)
        seizures = "Number of Seizures in File: 1\nSeizure Start Time: 100 seconds\nSeizure End Time: 140 seconds\n"
        (root / case / f"{case}-summary.txt").write_text(f"File Name: {case}_01.edf\n{seizures}\n")
    (root / "RECORDS").write_text("\n".join(records) + "\n")
    (root / "RECORDS-WITH-SEIZURES").write_text("\n".join(records) + "\n")
    return root, (root / records[0]).stat().st_size


EEG = "{kind: seizure, train_cases: [chb01], valid_cases: [chb02], test_cases: [chb03]}"


def speech(folder):
    import soundfile

    root, rng, size = folder / "LibriSpeech", np.random.default_rng(1), 0
    waves = [rng.normal(0, 0.05, 48_000).cumsum().clip(-0.9, 0.9) * 0.3 for _ in range(60)]
    words = "THE CAT SAT ON A MAT AND SAW ONE DOG RUN BY TWO OLD TREES".split()
    for split, speakers, each in (("train-clean-100", 96, 100), ("dev-clean", 2, 100), ("test-clean", 2, 100)):
        for speaker in range(1, speakers + 1):
            speaker += {"train-clean-100": 0, "dev-clean": 1000, "test-clean": 2000}[split]
            chapter = root / split / str(speaker) / "7"
            chapter.mkdir(parents=True)
            lines = []
            for i in range(each):
                name = f"{speaker}-7-{i:04}"
                wave = waves[int(rng.integers(60))] * rng.uniform(0.3, 1)  # no two alike
                soundfile.write(chapter / f"{name}.flac", wave, 16000, subtype="PCM_16")
                lines.append(f"{name} {' '.join(rng.choice(words, 8))}\n")
                size += 96_000
            (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return root, size


SPEECH = "{kind: speech, train_splits: [train-clean-100], valid_splits: [dev-clean], test_splits: [test-clean]}"

INPUTS = {"text": (text, TEXT, lambda size: 1.5 * size), "eeg": (eeg, EEG, lambda size: 512 * MIB), "speech": (speech, SPEECH, lambda size: 1024 * MIB)}


def opened(program, folder, task):
    """Seconds and bytes of one `harness plan` in a process of its own."""
    grid = folder / "grid.yaml"
    grid.write_text(f"experiment: large\ntask: {task}\nmodels: [{{kind: lstm, width: 8, layers: 1}}]\ntrain: {{streams: 4, segment: 40, seen: 1000}}\n")
    command = [program, "plan", str(grid), "--data", str(folder), "--out", str(folder / "runs"), "--cache", str(folder / "cache"), "--device", "cpu"]
    start = time.monotonic()
    pid = os.posix_spawn(program, command, os.environ)
    _, status, used = os.wait4(pid, 0)
    if status:
        raise SystemExit(f"harness plan ended with {os.waitstatus_to_exitcode(status)}")
    return time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", required=True)
    parser.add_argument("--folder", required=True, type=pathlib.Path)
    parser.add_argument("--only", default="text,eeg,speech")
    args = parser.parse_args()
    above = 0
    for name in args.only.split(","):
        make, task, bar = INPUTS[name]
        folder = args.folder / f"large-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            start = time.monotonic()
            _, size = make(folder)
            print(f"{name}: {size / MIB:.0f} MiB made in {time.monotonic() - start:.0f} s", flush=True)
            for which in ("first", "again"):
                wall, cpu, peak = opened(os.path.abspath(args.harness), folder, task)
                above += peak > bar(size)
                print(f"{name}: opened ({which}) in {wall:.1f} s, {cpu:.1f} s of processors, {peak / MIB:.0f} MiB resident, "
                      f"{peak / size:.2f} of its size, bar {bar(size) / MIB:.0f} MiB{'  ABOVE' if peak > bar(size) else ''}", flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if above else 0


if __name__ == "__main__":
    raise SystemExit(main())
