"""One training beside another: how far losses and validation scores of two runs lie apart.

    RECIPE="benchmarks/flickr8k-mini/dalr.yaml -s training.max_steps=300"
    dalr train $RECIPE -s training.precision=bf16 --out runs/bf16
    dalr train $RECIPE -s training.precision=fp32 --out runs/fp32
    python benchmarks/precision.py runs/bf16 runs/fp32

Both draw the same batches and the same dropout under one seed, so that what differs is the arithmetic.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN")
    one, other = (read(run) for run in parser.parse_args().runs)
    for what, unit in (("loss", "relative"), ("validation", "points")):
        first, second = one[what], other[what]
        steps = sorted(first.keys() & second.keys())
        if not steps:
            print(f"{what}: no step that both have")
            continue
        apart = [abs(first[step] - second[step]) / (second[step] if unit == "relative" else 1) for step in steps]
        last = f"{first[steps[-1]]:.4f} and {second[steps[-1]]:.4f}"
        best = f", best {max(first.values()):.2f} and {max(second.values()):.2f}" if what == "validation" else ""
        print(f"{what}: {len(steps)} records to step {steps[-1]}, at the end {last}{best}")
        print(f"  apart ({unit}): mean {mean(apart):.2g}, at most {max(apart):.2g}")


def read(run: Path) -> dict[str, dict[int, float]]:
    """Step -> mean loss since the record before, and step -> validation score."""
    found: dict[str, dict[int, float]] = {"loss": {}, "validation": {}}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if "loss" in record:
            found["loss"][record["step"]] = record["loss"]
        if "validation" in record:
            found["validation"][record["step"]] = next(iter(record["validation"].values()))
    return found


if __name__ == "__main__":
    main()
