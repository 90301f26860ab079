"""Mutated recordings: what the project's readers and the reference readers make of the same damaged files.

    pip install numpy pyedflib mne wfdb soundfile
    python mutated.py --harness ../../../../target/release/harness --files 200 --seed 1 [--formats edf,wfdb,flac] [--keep DIR]

For each format it makes whole files with the reference's own writer and with `harness data mini`, changes each in one to three places, and
reads every one with all references and with `harness data inspect`. The rule: where all references give the same samples, the harness
gives these, or refuses with a reason. It prints a table of outcomes and every case that breaks the rule (exit code 1), and with
--list every refusal of what the references agree on, by reason, and what the harness alone reads.

References: EDF by pyedflib (EDFlib) and mne, WFDB by wfdb, FLAC by soundfile (libsndfile).
"""

import argparse
import collections
import hashlib
import json
import pathlib
import random
import re
import shutil
import subprocess
import tempfile
import warnings

import numpy as np

warnings.filterwarnings("ignore")

TRIALS = {"edf": "pyedflib and mne", "wfdb": "wfdb", "flac": "soundfile"}


def digest(channels):
    """SHA-256 of the samples, little-endian i32, channel after channel: what `data inspect` prints."""
    return hashlib.sha256(b"".join(np.asarray(c).astype("<i4").tobytes() for c in channels)).hexdigest()


# ---- what the readers say: ("samples", digest) or ("refused", reason)


def said(read, *arguments):
    try:
        channels = read(*arguments)
        return ("samples", digest(channels), sum(len(c) for c in channels))
    except Exception as error:  # whatever a reference does instead of answering is a refusal
        return ("refused", f"{type(error).__name__}: {error}".splitlines()[0][:100], 0)


def by_harness(program, path):
    done = subprocess.run([program, "data", "inspect", "--json", str(path)], capture_output=True, text=True, timeout=120)
    if done.returncode == 0:
        recording = json.loads(done.stdout)[0]
        return ("samples", recording["sha256"], sum(c["samples"] for c in recording["channels"]))
    if done.returncode != 4:
        return ("crashed", f"exit {done.returncode}: {done.stderr[:300]}", 0)
    text = done.stderr.replace(str(path), "FILE").replace(str(path.parent), "FOLDER").strip()
    return ("refused", text, 0)


def edf_by_pyedflib(path):
    import pyedflib

    with pyedflib.EdfReader(str(path)) as file:
        return [file.readSignal(i, digital=True) for i in range(file.signals_in_file)]


def edf_by_mne(path):
    """mne gives volts; what they were as integers follows from the header's own ranges, as mne read them."""
    import mne

    raw = mne.io.read_raw_edf(path, preload=True, verbose="error", infer_types=False, units=None)
    extras = raw._raw_extras[0]
    chosen = extras["sel"]
    if len(set(extras["n_samps"][chosen])) > 1:
        raise ValueError("several rates: mne would resample")
    digital = []
    for row, offset, unit, cal in zip(raw.get_data(), extras["offsets"], extras["units"], extras["cal"]):
        digital.append(np.rint((row / unit - offset) / cal).astype(np.int64))
    return digital


def wfdb_by_wfdb(path):
    import wfdb

    record = wfdb.rdrecord(str(path.with_suffix("")), physical=False, smooth_frames=False)
    return record.e_d_signal


def flac_by_soundfile(path):
    import soundfile

    with soundfile.SoundFile(str(path)) as file:
        bits = {"PCM_S8": 8, "PCM_16": 16, "PCM_24": 24}[file.subtype]
        blocks = [file.read(4096, dtype="int32", always_2d=True)]
        while len(blocks[-1]):  # a stream that does not say how long it is
            blocks.append(file.read(4096, dtype="int32", always_2d=True))
    samples = np.concatenate(blocks)
    return list((samples >> (32 - bits)).T)


READERS = {"edf": [edf_by_pyedflib, edf_by_mne], "wfdb": [wfdb_by_wfdb], "flac": [flac_by_soundfile]}


# ---- whole files


def wave(rng, n, top):
    steps = rng.integers(-top // 50, top // 50 + 1, size=n)
    return np.clip(np.cumsum(steps), -top, top).astype(np.int64)


def whole_edf(folder, rng, n):
    import pyedflib

    path = folder / f"whole{n}.edf"
    plus, count = n % 2 == 1, 1 + n % 4
    kind = pyedflib.FILETYPE_EDFPLUS if plus else pyedflib.FILETYPE_EDF
    with pyedflib.EdfWriter(str(path), count, file_type=kind) as file:
        for i in range(count):
            file.setSignalHeader(
                i,
                dict(label=f"EEG F{i}", dimension="uV", sample_frequency=64, physical_max=800, physical_min=-800,
                     digital_max=2047, digital_min=-2048, transducer="", prefilter=""),
            )
        file.writeSamples([np.ascontiguousarray(wave(rng, 64 * 20, 2000).astype(np.int32)) for _ in range(count)], digital=True)
        if plus:
            file.writeAnnotation(3.5, 2, "a seizure")
            file.writeAnnotation(11, -1, "an eye")
    return [path]


def whole_wfdb(folder, rng, n):
    import wfdb

    name, fmt, count = f"whole{n}", ["16", "212", "80", "24", "32", "16"][n % 6], 1 + n % 3
    top = {"80": 100, "212": 1900}.get(fmt, 20000)
    signals = np.stack([wave(rng, 500, top) for _ in range(count)], axis=1)
    wfdb.wrsamp(name, fs=100, units=["mV"] * count, sig_name=[f"L{i}" for i in range(count)], d_signal=signals,
                fmt=[fmt] * count, adc_gain=[200.0] * count, baseline=[0] * count, write_dir=str(folder))
    return [folder / f"{name}.hea", folder / f"{name}.dat"]


def whole_flac(folder, rng, n):
    import soundfile

    path, bits = folder / f"whole{n}.flac", [16, 24, 16, 8][n % 4]
    samples = np.stack([wave(rng, 9000, 1 << (bits - 2)) for _ in range(1 + n % 2)], axis=1)
    subtype = {8: "PCM_S8", 16: "PCM_16", 24: "PCM_24"}[bits]
    soundfile.write(path, (samples << (32 - bits)).astype(np.int32), 16000, subtype=subtype, format="FLAC")
    return [path]


WHOLE = {"edf": whole_edf, "wfdb": whole_wfdb, "flac": whole_flac}


# ---- changes


def any_bytes(draw, data, start, end):
    """Flips, overwrites, removes, doubles or inserts within data[start:end]."""
    if end <= start:
        return data, "nothing"
    at, what = draw.randrange(start, end), draw.choice(["flip", "zero", "remove", "insert", "random"])
    size = draw.choice([1, 1, 2, 4, 16])
    if what == "flip":
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :], f"a bit at {at}"
    if what == "zero":
        return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :], f"{size} zeros at {at}"
    if what == "remove":
        return data[:at] + data[at + size :], f"{size} bytes gone at {at}"
    if what == "insert":
        return data[:at] + draw.randbytes(size) + data[at:], f"{size} bytes more at {at}"
    return data[:at] + draw.randbytes(min(size, len(data) - at)) + data[at + size :], f"{size} random bytes at {at}"


def ends(draw, data, header):
    what = draw.choice(["cut", "cut a little", "zeros behind", "rubbish behind", "doubled"])
    if what == "cut":
        at = draw.randrange(header, len(data) + 1)
        return data[:at], f"cut at {at}"
    if what == "cut a little":
        size = draw.choice([1, 2, 3, 17, 127])
        return data[: max(header, len(data) - size)], f"{size} bytes short"
    if what == "zeros behind":
        size = draw.choice([1, 2, 128, 256, 5000])
        return data + bytes(size), f"{size} zeros behind"
    if what == "rubbish behind":
        size = draw.choice([1, 2, 128, 256, 5000])
        return data + draw.randbytes(size), f"{size} bytes behind"
    return data + data[header:], "its samples twice"


EDF_FIELDS = [("version", 8), ("patient", 80), ("recording", 80), ("date", 8), ("time", 8), ("header bytes", 8), ("reserved", 44),
              ("records", 8), ("seconds", 8), ("signals", 4)]
EDF_SIGNAL = [("label", 16), ("transducer", 80), ("unit", 8), ("physical min", 8), ("physical max", 8), ("digital min", 8),
              ("digital max", 8), ("prefilter", 80), ("samples", 8), ("reserved", 32)]
VALUES = {
    "version": ["0", "1", "", "00"], "patient": ["", "X X X X", "Müller", "a\0b"], "recording": ["", "Startdate X", "é"],
    "date": ["01.01.85", "00.00.00", "31.02.99", "1.1.99", "32.13.00", ""], "time": ["00.00.00", "24.00.00", "1:2:3", ""],
    "header bytes": ["256", "512", "0", "-1", "", "99999999", "768.0"], "reserved": ["EDF+C", "EDF+D", "EDF", "BIOSEMI", "24BIT", ""],
    "records": ["-1", "0", "1", "19", "21", "99999999", "20.0", "", "2e1", "+20"],
    "seconds": ["1", "0", "-1", "0.5", "1.0", "1,0", "1e0", "", "2"], "signals": ["0", "1", "2", "-1", "999", "3", ""],
    "label": ["", "EDF Annotations", "EEG F0", "\xb5", "EDF annotations"], "transducer": ["", "x"],
    "unit": ["uV", "mV", "", "µV", "\xb5V", "V", "%"],
    "physical min": ["-800", "800", "0", "", "-8e2", "-1e9", "-800,5"], "physical max": ["800", "-800", "0", "", "8E2", "NaN", "inf"],
    "digital min": ["-2048", "0", "2047", "-32768", "-40000", "", "-2048.0"], "digital max": ["2047", "32767", "-2048", "40000", "", "+2047"],
    "prefilter": ["", "HP:0.1Hz"], "samples": ["64", "0", "-1", "32", "128", "", "64.0", "1000000"],
}


def change_edf(draw, folder, name, files):
    data, told = files[0].read_bytes(), []
    for _ in range(draw.choice([1, 1, 2, 3])):
        count = int(re.sub(rb"\D", b"", data[252:256]) or 1) or 1
        count = min(count, max(1, (len(data) - 256) // 256))
        what = draw.choice(["field", "field", "signal field", "signal field", "header", "samples", "end"])
        if what == "field":
            field = draw.choice(EDF_FIELDS)[0]
            at = sum(size for _, size in EDF_FIELDS[: [f for f, _ in EDF_FIELDS].index(field)])
            size = dict(EDF_FIELDS)[field]
        elif what == "signal field":
            field = draw.choice(EDF_SIGNAL)[0]
            which, index = draw.randrange(count), [f for f, _ in EDF_SIGNAL].index(field)
            size = EDF_SIGNAL[index][1]
            at = 256 + count * sum(size for _, size in EDF_SIGNAL[:index]) + which * size
        if what in ("field", "signal field"):
            value = draw.choice(VALUES[field])
            text = value.encode("utf-8" if "µ" in value or "ü" in value else "latin-1")[:size]
            data = data[:at] + text.ljust(size) + data[at + size :]
            told.append(f"{field} `{value}`")
        elif what == "header":
            data, how = any_bytes(draw, data, 0, min(len(data), 256 + 256 * count))
            told.append(how)
        elif what == "samples":
            data, how = any_bytes(draw, data, min(len(data), 256 + 256 * count), len(data))
            told.append(how)
        else:
            data, how = ends(draw, data, min(len(data), 256 + 256 * count))
            told.append(how)
    path = folder / f"{name}.edf"
    path.write_bytes(data)
    return path, "; ".join(told)


def change_wfdb(draw, folder, name, files):
    header, data = files[0].read_text().replace(files[0].stem, name), files[1].read_bytes()
    told = []
    if draw.random() < 0.6:  # the reference does not look at checksums; with them most changes of samples are refused
        lines = header.splitlines()
        header = "\n".join([lines[0]] + [" ".join(l.split(" ")[:5]) for l in lines[1:]]) + "\n"
        told.append("no checksums")
    for _ in range(draw.choice([1, 1, 2, 3])):
        what = draw.choice(["number", "word", "format", "lines", "header", "samples", "end"])
        if what == "number":
            numbers = list(re.finditer(r"\d+", header))
            place = draw.choice(numbers)
            value = draw.choice(["0", "1", "-1", "2", "16", "80", "212", "500", "501", "499", "99999999", "1.5", ""])
            header = header[: place.start()] + value + header[place.end() :]
            told.append(f"`{place.group()}` is `{value}`")
        elif what == "word":
            words = list(re.finditer(r"\S+", header))
            place = draw.choice(words)
            value = draw.choice(["", "x", "0", place.group() + " " + place.group(), "100/100", "200(0)/mV", "200.5/uV", "16x2", "212+10", "16:3"])
            header = header[: place.start()] + value + header[place.end() :]
            told.append(f"`{place.group()}` is `{value}`")
        elif what == "format":
            of = re.search(r"\.dat (\d+)", header)
            if of:
                value = draw.choice(["8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "17"])
                header = header.replace(f".dat {of.group(1)}", f".dat {value}")
                told.append(f"format {value}")
        elif what == "lines":
            header, how = draw.choice([
                (header.replace("\n", "\r\n"), "CRLF"), ("# a comment\n" + header, "a comment in front"), ("\n\n" + header, "blank lines"),
                (header + "# <age>: 40\n", "a comment behind"), (header + header.splitlines()[-1] + "\n", "one line more"),
                ("\n".join(header.splitlines()[:-1]) + "\n", "one line less"), (header.rstrip("\n"), "no last newline"),
                (header.replace(" ", "  "), "two blanks each"), (header.replace(" ", "\t"), "tabs"), ("\ufeff" + header, "a mark"),
            ])
            told.append(how)
        elif what == "header":
            changed, how = any_bytes(draw, header.encode(), 0, len(header))
            header = changed.decode("latin-1")
            told.append("header: " + how)
        elif what == "samples":
            data, how = any_bytes(draw, data, 0, len(data))
            told.append("samples: " + how)
        else:
            data, how = ends(draw, data, 0)
            told.append(how)
    (folder / f"{name}.dat").write_bytes(data)
    path = folder / f"{name}.hea"
    path.write_bytes(header.encode("utf-8"))
    return path, "; ".join(told)


def change_flac(draw, folder, name, files):
    data, told = files[0].read_bytes(), []
    for _ in range(draw.choice([1, 1, 2, 3])):
        what = draw.choice(["header", "header", "frames", "end", "tag in front", "no MD5", "length", "cut and no length"])
        if what == "header":
            data, how = any_bytes(draw, data, 0, min(len(data), 80))
        elif what == "frames":
            data, how = any_bytes(draw, data, min(len(data), 80), len(data))
        elif what == "end":
            data, how = ends(draw, data, min(len(data), 42))
        elif what == "tag in front":
            size = draw.choice([0, 10, 300])
            data, how = b"ID3\x04\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + bytes(size) + data, "ID3v2"
        elif what == "no MD5":
            data, how = data[:26] + bytes(16) + data[42:], "no MD5"
        elif what == "length":
            data, how = data[:22] + draw.randbytes(4) + data[26:], "another length"
        else:
            data, how = data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:], "no length"
        told.append(how)
    path = folder / f"{name}.flac"
    path.write_bytes(data)
    return path, "; ".join(told)


CHANGE = {"edf": change_edf, "wfdb": change_wfdb, "flac": change_flac}


# ---- the trial


def outcome(references, ours):
    """What became of a file, and whether that keeps the rule."""
    samples = {r[1] for r in references if r[0] == "samples"}
    if ours[0] == "crashed":
        return "the harness crashed", False
    if all(r[0] == "refused" for r in references):
        return ("all refuse" if ours[0] == "refused" else "only the harness reads it"), True
    if any(r[0] == "refused" for r in references) or len(samples) > 1:
        if ours[0] == "refused":
            return "references differ, the harness refuses", True
        return ("references differ, the harness as one of them" if ours[1] in samples else "references differ, the harness from all"), True
    if ours[0] == "refused":
        return "references agree, the harness refuses", True
    if ours[1] in samples:
        return "the same samples", True
    # a file without samples has no digest to compare
    return ("the same samples", True) if ours[2] == 0 == references[0][2] else ("other samples", False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", required=True)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--formats", default="edf,wfdb,flac")
    parser.add_argument("--list", action="store_true", help="print refusals of what the references agree on")
    parser.add_argument("--keep", help="a folder for the files that break the rule")
    args = parser.parse_args()
    broken = 0
    for kind in args.formats.split(","):
        draw, rng = random.Random(f"{args.seed}-{kind}"), np.random.default_rng(args.seed)
        counts, refusals, differ = collections.Counter(), collections.defaultdict(list), []
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            bases = [WHOLE[kind](folder, rng, n) for n in range(12)]
            for n, files in enumerate(bases):  # they must agree before anything is changed
                ours, references = by_harness(args.harness, files[0]), [said(read, files[0]) for read in READERS[kind]]
                name, keeps = outcome(references, ours)
                if name != "the same samples":
                    print(f"{kind}: whole file {n}: {name}: {ours[:2]} {[r[:2] for r in references]}")
                    broken += 1
            for n in range(args.files):
                path, how = CHANGE[kind](draw, folder, f"m{n}", draw.choice(bases))
                ours, references = by_harness(args.harness, path), [said(read, path) for read in READERS[kind]]
                name, keeps = outcome(references, ours)
                counts[name] += 1
                if name == "references agree, the harness refuses":
                    reason = re.sub(r"\d+", "N", " ".join(ours[1].split()))
                    refusals[reason].append((n, how, " ".join(ours[1].split())))
                if name in ("references differ, the harness from all", "only the harness reads it"):
                    differ.append((n, how, ours, references))
                if not keeps:
                    broken += 1
                    print(f"{kind} m{n}: {how}: {name}: harness {ours}, references {references}")
                    if args.keep:
                        for file in folder.glob(f"m{n}.*"):
                            shutil.copy(file, args.keep)
        print(f"{kind}: {args.files} files, seed {args.seed}, against {TRIALS[kind]}")
        for name, count in counts.most_common():
            print(f"  {count:5}  {name}")
        if args.list:
            for reason, cases in sorted(refusals.items(), key=lambda item: -len(item[1])):
                print(f"  refused {len(cases)}: {cases[0][2][:400]}")
                for n, how, _ in cases[:6]:
                    print(f"      m{n}: {how}")
            for n, how, ours, references in differ:
                print(f"  alone: m{n}: {how}: {ours[2]} samples; {'; '.join(reference[1] for reference in references)}")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
