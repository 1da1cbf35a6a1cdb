"""Result files as `dalr evaluate` leaves them, with random but plausible scores; and run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import pearsonr, rankdata, spearmanr

from dalr.evaluation.results import (
    Comparison,
    Correlation,
    Details,
    EmbeddingMap,
    Evaluation,
    Evaluations,
    Failed,
    GeometryResult,
    MtebResult,
    PairDetails,
    Recall,
    RetrievalResult,
    Settings,
    StsResult,
    SubsetCorrelation,
    TaskResult,
    TransferResult,
    WithoutOverlap,
    WorstPair,
    sts_average,
    transfer_average,
)
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS

SUBSETS = {"STS12": ("MSRpar", "MSRvid", "SMTeuroparl"), "STS16": ("headlines", "question-question")}
SENTENCES = (
    "A man is playing a guitar.",
    "Two dogs run along a beach.",
    "The stock market fell on Monday.",
    "A child sleeps.",
)


def evaluation(
    model: str,
    *,
    seed: int = 0,
    noise: float = 0.6,
    pairs: int = 300,
    without: Sequence[str] = (),
    transfer: bool = True,
    extras: bool = True,
    sentences: Sequence[str] = SENTENCES,
    **fields: Any,
) -> Evaluation:
    """Scores of one model: `noise` makes them worse, tasks in `without` failed."""
    random = np.random.default_rng(seed)
    tasks: dict[str, TaskResult] = {}
    details: dict[str, PairDetails] = {}
    for task in (*STS_TASKS, "sts-b-dev"):
        if task not in without:
            tasks[task], details[task] = _sts(
                task, random, noise, pairs, sentences, overlap=extras and task == "STS-B"
            )
    right: dict[str, str] = {}
    for task in TRANSFER_TASKS if transfer else ():
        if task not in without:
            tasks[task], right[task] = _transfer(random, noise)
    if extras:
        tasks["retrieval"] = _retrieval(random)
        for source in ("STS-B", "SICK-R"):
            tasks[f"geometry {source}"] = _geometry(source, random, noise)
        tasks["STS22"] = MtebResult(main_score=60 - 5 * noise, metric="cosine_spearman", mteb_version="2.26.0")
    return Evaluation(
        **{
            "model": model,
            "model_sha256": f"{seed:064x}",
            "created": "2026-11-25T09:30:00Z",
            "dalr": "0.1.0",
            "settings": Settings(classifier="senteval", overlap_with="captions.jsonl" if extras else None),
            "tasks": tasks,
            "sts_avg": sts_average(tasks),
            "transfer_avg": transfer_average(tasks, "acc"),
            "transfer_devavg": transfer_average(tasks, "devacc"),
            "failed": tuple(Failed(task=task, reason=f"{task}.txt: no such file") for task in without),
            "details": Details(sts=details, transfer=right, map=_map(random, pairs) if extras else None),
        }
        | fields
    )


def comparison(a: Evaluation, b: Evaluation, *, seed: int = 0) -> tuple[Comparison, ...]:
    """Every STS and transfer task that both have."""
    random = np.random.default_rng(seed)
    found = []
    for task in (*STS_TASKS, *TRANSFER_TASKS):
        first, second = a.tasks.get(task), b.tasks.get(task)
        if first is None or second is None:
            continue
        metric = "spearman" if task in STS_TASKS else "acc"
        difference = getattr(first, metric) - getattr(second, metric)
        half = float(random.uniform(0.5, 2.5))
        found.append(
            Comparison(
                task=task,
                metric=metric,
                a=a.model,
                b=b.model,
                difference=difference,
                interval=(difference - half, difference + half),
                p_value=0.0 if abs(difference) > half else float(random.uniform(0.05, 0.9)),
            )
        )
    return tuple(found)


def three_models(**options: Any) -> Evaluations:
    """A complete model, one that is a little worse, one that lacks two tasks; with tests between the first two."""
    first = evaluation("runs/dalr/model", seed=1, noise=0.55, **options)
    second = evaluation("runs/simcse/model", seed=2, noise=0.65, **options)
    third = evaluation("sentence-transformers/untrained", seed=3, noise=1.1, without=("SICK-R", "CR"), **options)
    return Evaluations(models=(first, second, third), comparisons=comparison(first, second))


def run_folder(
    folder: Path, *, name: str = "toy", steps: int = 200, status: str = "finished", seed: int = 0
) -> Path:
    """`run.json` and `metrics.jsonl` of a training with two terms and a validation score."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    record: dict[str, Any] = {
        "name": name,
        "recipe": {"name": name, "seed": seed, "training": {"learning_rate": 3e-4, "batch_size": 64}},
        "steps": steps,
        "versions": {"torch": "2.13.0"},
        "machine": {"processor": "toy", "cores": 2},
        "git_commit": "0123456789abcdef",
        "trained_parameters": 17_241_984,
        "status": status,
    }
    lines: list[dict[str, Any]] = [{"step": 0, "validation": {"dev Spearman": 50.0}}]
    scores = {0: 50.0}
    for step in range(10, steps + 1, 10):
        terms = {"infonce": 2 * 0.99**step + float(random.uniform(0, 0.1)), "grounding": 5 * 0.995**step}
        loss = sum(terms.values())
        lines.append({"step": step, "loss": loss, "learning_rate": 3e-4 * (1 - step / steps), "terms": terms})
        if step % 50 == 0:
            scores[step] = 80 - 30 * 0.98**step
            lines.append({"step": step, "validation": {"dev Spearman": scores[step]}})
    if status == "finished":
        best = max(scores, key=lambda step: scores[step])
        record["result"] = {
            "best_step": best,
            "best_score": scores[best],
            "untrained_score": 50.0,
            "validation": "dev Spearman",
            "seconds": 12.5,
        }
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def _sts(
    task: str,
    random: np.random.Generator,
    noise: float,
    pairs: int,
    sentences: Sequence[str],
    *,
    overlap: bool,
) -> tuple[StsResult, PairDetails]:
    gold = random.integers(0, 26, pairs) / 5
    cosine = np.tanh(0.25 * gold + noise * random.normal(size=pairs) * 0.5)
    spearman, pearson = 100 * float(spearmanr(gold, cosine)[0]), 100 * float(pearsonr(gold, cosine)[0])
    names = SUBSETS.get(task, (task,))
    sizes = [len(part) for part in np.array_split(np.arange(pairs), len(names))]
    errors = (rankdata(cosine) - rankdata(gold)) / pairs
    worst = np.argsort(-np.abs(errors))[:8]
    both = Correlation(spearman=spearman - 1, pearson=pearson - 1)
    result = StsResult(
        split="dev" if task == "sts-b-dev" else "test",
        aggregation="all",
        pairs=pairs,
        spearman=spearman,
        pearson=pearson,
        interval=(spearman - 1.8, spearman + 1.6),
        mean=both,
        weighted_mean=both,
        subsets={
            name: SubsetCorrelation(spearman=spearman + shift, pearson=pearson + shift, pairs=size)
            for shift, (name, size) in enumerate(zip(names, sizes, strict=True))
        },
        without_overlap=WithoutOverlap(
            spearman=spearman - 0.4,
            pearson=pearson - 0.3,
            pairs=pairs - 12,
            left_out_exact=5,
            left_out_near=7,
            interval=(spearman - 2.2, spearman + 1.2),
        )
        if overlap
        else None,
    )
    details = PairDetails(
        gold=tuple(gold.tolist()),
        cosine=tuple(cosine.tolist()),
        subset_sizes=dict(zip(names, sizes, strict=True)),
        worst=tuple(
            WorstPair(
                first=sentences[at % len(sentences)],
                second=sentences[(at + 1) % len(sentences)],
                gold=float(gold[at]),
                cosine=float(cosine[at]),
                subset=names[0],
                rank_error=float(errors[at]),
            )
            for at in worst
        ),
    )
    return result, details


def _transfer(random: np.random.Generator, noise: float) -> tuple[TransferResult, str]:
    right = random.random(500) < 0.92 - 0.1 * noise
    acc = 100 * float(right.mean())
    result = TransferResult(
        split="10-fold cross-validation",
        classifier="senteval",
        acc=acc,
        devacc=acc + 0.7,
        examples=500,
        interval=(acc - 2.4, acc + 2.2),
    )
    return result, "".join("1" if each else "0" for each in right)


def _retrieval(random: np.random.Generator) -> RetrievalResult:
    def recall() -> Recall:
        r1 = float(random.uniform(10, 30))
        return Recall(r1=r1, r5=r1 + 25, r10=r1 + 40, median_rank=float(random.integers(3, 12)))

    return RetrievalResult(
        space="grounding", images=1000, captions=5000, text_to_image=recall(), image_to_text=recall()
    )


def _geometry(source: str, random: np.random.Generator, noise: float) -> GeometryResult:
    return GeometryResult(
        source=source,
        alignment=0.15 + 0.1 * noise + float(random.uniform(0, 0.05)),
        uniformity=-2.6 + 0.5 * noise,
        mean_cosine=0.05 + 0.2 * noise,
        top_component=0.08,
        effective_rank=180.0 - 40 * noise,
        hubness=1.5 + noise,
        largest_hub=95,
        antihubs=0.08,
        sentences=2552,
    )


def _map(random: np.random.Generator, pairs: int) -> EmbeddingMap:
    centres = random.normal(size=(len(STS_TASKS), 2)) * 6
    points = np.repeat(centres, pairs, axis=0) + random.normal(size=(len(STS_TASKS) * pairs, 2)) * 2
    return EmbeddingMap(
        method="pca",
        x=tuple(points[:, 0].tolist()),
        y=tuple(points[:, 1].tolist()),
        task=tuple(np.repeat(STS_TASKS, pairs).tolist()),
    )
