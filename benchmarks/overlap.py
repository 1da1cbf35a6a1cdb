"""The overlap audit, timed: a million lines of text and all captions of Flickr30k against every STS set.

python benchmarks/overlap.py FOLDER        the folder of real data, `$DALR_SHARED/data`

The lines are those of wiki10k.txt over and over, each time without a word drawn at random, so that hardly two are
the same. Prints processor seconds without the making of the lines, the peak of memory, and the table.
"""

from __future__ import annotations

import gzip
import json
import random
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dalr.evaluation.overlap import audit
from dalr.evaluation.sts import load_sts
from dalr.evaluation.tasks import STS_DEV, STS_TASKS

LINES = 1_000_000


def captions(data: Path) -> Iterator[str]:
    with gzip.open(data / "captions" / "flickr30k_captions.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield from json.loads(line)["captions"]


def lines(data: Path) -> Iterator[str]:
    text = (data / "text" / "wiki10k.txt").read_text(encoding="utf-8").split("\n")[:11914]
    draw = random.Random(0)
    for number in range(LINES):
        words = text[number % len(text)].split(" ")
        del words[draw.randrange(len(words))]
        yield " ".join(words)


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(data: Path) -> None:
    pairs = [load_sts(data / "senteval", task) for task in (*STS_TASKS, STS_DEV)]
    before = memory()
    for name, training in (("text", lines), ("captions", captions)):
        start = time.process_time()
        count = sum(1 for _ in training(data))
        making = time.process_time() - start
        report = audit(training(data), pairs)
        seconds = time.process_time() - start - 2 * making
        print(f"{name}: {count} sentences in {seconds:.1f} s ({1e6 * seconds / count:.0f} µs each)")
        print(f"peak of memory {memory():.0f} MiB, before the audit {before:.0f} MiB")
        print(report.table())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
