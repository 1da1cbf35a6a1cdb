"""How do time and memory grow with the number of rows? `python benchmarks/scale.py --out scale.json`.

Captions are generated, five an image, and everything else from them. Each stage is measured at each number of rows
in a process of its own, after its imports: processor seconds, and how far its memory rose above what they take.
The exponent b of time = a · rows^b is fitted to those of a stage's measurements that took a fifth of a second or
more, two at least, and for `grouping` from 100,000 rows on: it compares within parts of 16,384 rows, so that fewer
rows cost their square. `--story` trains on the largest number of rows: check, tokenise, 200 steps, killed at step
100 and resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROWS = (10_000, 100_000, 1_000_000, 10_000_000)
PER_IMAGE, DIM, BATCH, CHUNK = 5, 32, 64, 100_000
MOST = {"grouping": 1_000_000, "encode": 100_000, "search": 1_000_000}
"""Rows beyond which a stage is extrapolated."""
FITTED_SECONDS = 0.2
FITTED_FROM = {"grouping": 100_000}
"""Rows from which a stage's exponent is fitted."""
QUERIES = 1_000
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
KINDS = {"adjective": 60, "noun": 400, "verb": 80}
PATTERN = ("adjective", "noun", "verb", "adjective", "noun", "adjective", "noun")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--story", action="store_true", help="also train on the largest number of rows")
    parser.add_argument("--folder", type=Path, help="keep the generated data here (default: a temporary folder)")
    parser.add_argument("--out", type=Path, help="write the measurements as JSON")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(options.folder, options.measure[0], int(options.measure[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="dalr-scale-", dir=options.folder) as name:
        found = {"stages": list(measure_all(Path(name), options.stages, sorted(options.rows)))}
        if options.story:
            found["story"] = story(Path(name), max(options.rows))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure_all(folder: Path, stages: list[str], sizes: list[int]) -> Iterator[dict[str, Any]]:
    write_vocabulary(folder)
    for rows in sizes:
        write_captions(folder, rows)
    print(f"{'stage':12}{'rows':>12}{'CPU s':>10}{'MiB':>9}{'bytes a row':>13}{'exponent':>10}")
    for stage in stages:
        several: list[dict[str, Any]] = []
        for rows in sizes:
            if rows > MOST.get(stage, rows):
                continue
            several.append(in_a_process(folder, stage, rows))
            row = several[-1]
            told = f"{b:10.3f}" if (b := exponent(stage, several)) is not None else ""
            size = f"{row['bytes'] / 2**20:9.1f}{row['bytes'] / rows:13.1f}"
            print(f"{stage:12}{rows:12,}{row['seconds']:10.2f}{size}{told}", flush=True)
        yield {"stage": stage, "measurements": several, "exponent": exponent(stage, several)}


def in_a_process(folder: Path, stage: str, rows: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--folder", str(folder), "--measure", stage, str(rows)]
    environment = os.environ | {"DALR_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(folder: Path, stage: str, rows: int) -> dict[str, Any]:
    """Of one stage, in this process: `prepare` gives the work, which is what is timed."""
    work = STAGES[stage](folder, rows)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before, began = memory("VmRSS"), time.process_time()
    work()
    return {"rows": rows, "seconds": time.process_time() - began, "bytes": max(memory("VmHWM") - before, 0)}


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def exponent(stage: str, several: list[dict[str, Any]]) -> float | None:
    """The slope of log time over log rows."""
    fewest = FITTED_FROM.get(stage, 0)
    fitted = [
        (each["rows"], each["seconds"])
        for each in several
        if each["seconds"] >= FITTED_SECONDS and each["rows"] >= fewest
    ]
    if len(fitted) < 2:
        return None
    logarithms = np.log(np.array(fitted))
    return float(np.polyfit(logarithms[:, 0], logarithms[:, 1], 1)[0])


# the data


def words() -> dict[str, list[str]]:
    """Invented words of each kind."""
    random = np.random.default_rng(0)
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    made = ["".join(random.choice(syllables, 3)) for _ in range(4 * sum(KINDS.values()))]
    distinct = iter(dict.fromkeys(made))
    return {kind: [next(distinct) for _ in range(count)] for kind, count in KINDS.items()}


def write_vocabulary(folder: Path) -> None:
    known = [*SPECIAL, "a", *(word for several in words().values() for word in several)]
    (folder / "vocabulary.txt").write_text("\n".join(known) + "\n", encoding="utf-8")


def captions(rows: int) -> Iterator[list[str]]:
    """Nearly all are different: there are 10¹⁴ sentences."""
    known, random = words(), np.random.default_rng(1)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        chosen = [np.array(known[kind])[random.integers(0, KINDS[kind], count)].tolist() for kind in PATTERN]
        yield [f"a {p} {q} {r} a {s} {t} a {u} {v}" for p, q, r, s, t, u, v in zip(*chosen, strict=True)]


def write_captions(folder: Path, rows: int) -> None:
    image = 0
    with open(folder / f"{rows}.jsonl", "w", encoding="utf-8") as file:
        for several in captions(rows):
            for start in range(0, len(several), PER_IMAGE):
                record = {"image": f"{image:09d}.jpg", "captions": several[start : start + PER_IMAGE]}
                file.write(json.dumps(record) + "\n")
                image += 1


def write_vectors(folder: Path, images: int) -> Path:
    """A store of random vectors of the images."""
    from dalr.features.store import write_store
    from dalr.io.strings import Strings

    out = folder / f"store-{images}"
    if not out.exists():
        random = np.random.default_rng(2)
        blocks = (
            random.standard_normal((min(CHUNK, images - start), DIM), np.float32)
            for start in range(0, images, CHUNK)
        )
        ids = Strings.of(f"{image:09d}.jpg" for image in range(images))
        write_store(out, ids=ids, blocks=blocks, source={"kind": "benchmark"}, origin="random")
    return out


def student(folder: Path) -> Path:
    from dalr.demo.student import write_student

    out = folder / "student"
    if not out.exists():
        write_student(out, folder / "vocabulary.txt", seed=0)
    return out


# the stages


def check(folder: Path, rows: int) -> Callable[[], object]:
    from dalr.data.dataset import read_pairs

    return lambda: read_pairs(folder / f"{rows}.jsonl", [], {})


def tokenise(folder: Path, rows: int) -> Callable[[], object]:
    from transformers import AutoTokenizer

    from dalr.data.tokens import tokenised
    from dalr.io.strings import Strings

    sentences = Strings.of(caption for several in captions(rows) for caption in several)
    tokenizer = AutoTokenizer.from_pretrained(student(folder))
    return lambda: tokenised(sentences, tokenizer, max_tokens=32)


def schedule(_: Path, rows: int) -> Callable[[], object]:
    from dalr.data.schedule import Plan, ScheduleConfig, Stream

    images = np.arange(rows) // PER_IMAGE
    keys = np.random.default_rng(3).integers(0, 2**62, rows)
    streams = (Stream(kind="pair", text_keys=keys, image_keys=images),)
    plan = Plan(streams=streams, schedule=ScheduleConfig(), batch_size=BATCH, seed=0)
    return lambda: plan.kinds(0)


def features(folder: Path, rows: int) -> Callable[[], object]:
    from dalr.features.store import open_store

    out = write_vectors(folder, rows)

    def work() -> None:
        store = open_store(out)
        found = store.rows_of(store.ids, what="image")
        for start in range(0, rows, CHUNK):
            store.read(found[start : start + CHUNK])

    return work


def grouping(folder: Path, rows: int) -> Callable[[], object]:
    from dalr.data.grouping import Groups
    from dalr.features.store import StoredVectors, open_store
    from dalr.training.neighbours import nearest_by

    store = open_store(write_vectors(folder, rows))
    things = np.arange(rows)
    sources = [(StoredVectors(store=store, rows=things), 1.0)]
    groups = Groups(thing_of=things, things=4, rows=1, nearest=nearest_by(sources, things, 4))
    random = np.random.default_rng(4)
    order = random.permutation(rows)
    return lambda: groups.arranged(order, random)


def encode(folder: Path, rows: int) -> Callable[[], object]:
    from dalr.models.config import EncoderConfig
    from dalr.models.embedding import embed
    from dalr.models.loading import load_encoder

    model = load_encoder(EncoderConfig(model=str(student(folder)), pooling="mean"))
    sentences = [caption for several in captions(rows) for caption in several]
    return lambda: embed(model, sentences)


def search(_: Path, rows: int) -> Callable[[], object]:
    from dalr.inference.nearest import nearest

    random = np.random.default_rng(5)
    vectors = random.standard_normal((rows, DIM), np.float32)
    queries = random.standard_normal((QUERIES, DIM), np.float32)
    return lambda: nearest(queries, vectors, 10)


STAGES: dict[str, Callable[[Path, int], Callable[[], object]]] = {
    each.__name__: each for each in (check, tokenise, schedule, features, grouping, encode, search)
}


# the story


def story(folder: Path, rows: int) -> dict[str, Any]:
    """A training of 200 steps on all rows, killed at step 100 or later and started again."""
    recipe = {
        "name": "scale",
        "data": {"pairs": str(folder / f"{rows}.jsonl")},
        "features": {"image": str(write_vectors(folder, -(-rows // PER_IMAGE)))},
        "student": {"model": str(student(folder)), "pooling": "mean"},
        "objective": {"infonce": {}, "grounding": {}},
        "training": {"batch_size": BATCH, "max_steps": 200, "save_every": 50},
        "validation": None,
    }
    (folder / "scale.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    cache = folder / "cache"  # the captions are tokenised already, if that stage was measured
    out = folder / "run"
    found: dict[str, Any] = {"rows": rows}
    found["check"] = command(cache, "check", str(folder / "scale.yaml"))
    train = ("train", str(folder / "scale.yaml"), "--out", str(out))
    found["train, killed at step 100"] = command(cache, *train, until=lambda: steps(out) >= 100)
    found["resume, to step 200"] = command(cache, *train, "--resume")
    found["steps"] = steps(out)
    for name, value in found.items():
        print(f"{name}: {value}", flush=True)
    return found


def command(cache: Path, *arguments: str, until: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Run dalr; its seconds, and the peak of the memory that is its own."""
    environment = os.environ | {"DALR_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "dalr", *arguments, "--quiet"], env=environment, stdout=subprocess.DEVNULL
    )
    anonymous = 0
    while process.poll() is None:
        time.sleep(0.2)
        anonymous = max(anonymous, anonymous_bytes(process.pid))
        if until is not None and until():
            process.send_signal(signal.SIGKILL)
            process.wait()
    if process.returncode not in (0, -signal.SIGKILL):
        raise SystemExit(f"error: dalr {' '.join(arguments)} ended with {process.returncode}")
    return {"seconds": round(time.monotonic() - began, 1), "peak_mib": round(anonymous / 2**20)}


def anonymous_bytes(pid: int) -> int:
    """Memory that is the process's own, without pages of files."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


def steps(run: Path) -> int:
    """The last step that the record of a run has."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return max((json.loads(line).get("step", 0) for line in lines if line.endswith("}")), default=0)


if __name__ == "__main__":
    main()
