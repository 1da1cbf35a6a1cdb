"""What did an evaluation find? Typed results, printed, written to JSON and read back by `dalr report`.

One typed shape for all three, because a report that guesses at a dictionary shows a missing number as a zero.
Scores are × 100 and not rounded; every number says over which split and by which aggregation it was formed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dalr.errors import DataError, Problem
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS
from dalr.io.atomic import write_text
from dalr.io.frame import data_frame

if TYPE_CHECKING:
    import pandas
from dalr.io.paths import regular

FORMAT, VERSION = "dalr-evaluation", 1
RUN_RESULT = "evaluation.json"
"""What the evaluations of a run leave in its folder, for the report."""


class Result(BaseModel):
    """A part of a result file: read-only, without NaN, forgiving about keys of a later version."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


_ROUNDING = 1e-6
Correlation100 = Annotated[float, Field(ge=-100 - _ROUNDING, le=100 + _ROUNDING)]
"""A correlation × 100."""
Percent = Annotated[float, Field(ge=0, le=100 + _ROUNDING)]


class Correlation(Result):
    """Correlation × 100 of cosine and gold score."""

    spearman: Correlation100
    pearson: Correlation100


class SubsetCorrelation(Correlation):
    pairs: int


class WithoutOverlap(Correlation):
    """The same score without the pairs that hold a training sentence."""

    pairs: int
    left_out_exact: int
    """Pairs with a sentence that was trained on, after normalisation."""
    left_out_near: int
    """Further pairs with a near-duplicate of one."""
    interval: tuple[float, float]
    subsets: Mapping[str, SubsetCorrelation] = {}
    """Those of which enough is left for a correlation."""


class StsResult(Result):
    """One STS task."""

    kind: Literal["sts"] = "sts"
    split: str
    """`test` or `dev`."""
    aggregation: str
    """How `spearman` and `pearson` treat the subsets: `all` puts their pairs together, `groups` takes the mean over
    groups of files."""
    pairs: int
    spearman: Correlation100
    pearson: Correlation100
    interval: tuple[float, float]
    """95 % percentile bootstrap over pairs, of `spearman`."""
    mean: Correlation
    """Unweighted mean over subsets."""
    weighted_mean: Correlation
    """Mean over subsets, weighted by their pairs."""
    subsets: Mapping[str, SubsetCorrelation]
    groups: Annotated[Mapping[str, Correlation], Field(exclude_if=lambda groups: not groups)] = {}
    """Of files in groups: the mean over the files of each."""
    pairs_sha256: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """Content of a user's own pairs, by which a score of other pairs is known."""
    without_overlap: WithoutOverlap | None = None


class TransferResult(Result):
    """One transfer task: accuracy × 100 of a classifier over frozen vectors."""

    kind: Literal["transfer"] = "transfer"
    split: str
    """What `acc` is measured on, such as `10-fold cross-validation` or `test`."""
    classifier: str
    """`senteval`, `senteval-fast` or `lbfgs`."""
    acc: Percent
    """Test accuracy."""
    devacc: Percent
    """Of the penalty that was chosen, on the data that chose it."""
    examples: int
    """Examples that `acc` is measured on."""
    interval: tuple[float, float]
    """95 % bootstrap over examples, of the fraction of examples that are right."""


class Recall(Result):
    """One direction of retrieval, in % of the queries."""

    r1: Annotated[Percent, Field(alias="R@1")]
    r5: Annotated[Percent, Field(alias="R@5")]
    r10: Annotated[Percent, Field(alias="R@10")]
    median_rank: float
    intervals: Mapping[str, tuple[float, float]] = {}
    """95 % bootstrap over images, by the name of the recall."""


class RetrievalResult(Result):
    """Image–text retrieval."""

    kind: Literal["retrieval"] = "retrieval"
    split: str = "held out"
    """Which images these are: `test`, or what was named."""
    items: str = ""
    """Fingerprint of the images and captions: scores of the same ones may be compared."""
    space: str
    """`grounding` (trained heads), `clip` (that of the image features, with a trained head for sentences),
    `linear map` (fitted on training images) or `model` (a multimodal model's own space)."""
    images: int
    captions: int
    text_to_image: Recall
    image_to_text: Recall


class CaptionsResult(Result):
    """Finding the other captions of an image among the captions of all."""

    kind: Literal["captions"] = "captions"
    split: str
    items: str
    """As of retrieval."""
    images: int
    captions: int
    queries: int
    """Captions that have others of the same image."""
    r1: Annotated[Percent, Field(alias="R@1")]
    """In % of the queries: a caption of the same image is the nearest."""
    r10: Annotated[Percent, Field(alias="R@10")]
    """One is among the ten nearest."""
    map: Percent
    """Mean average precision × 100."""
    intervals: Mapping[str, tuple[float, float]]
    """95 % bootstrap over images, by `R@1`, `R@10`, `MAP`."""


class GeometryResult(Result):
    """How the vectors of one split lie on the sphere. Lower is better for the first three."""

    kind: Literal["geometry"] = "geometry"
    source: str
    """The task whose sentences these are."""
    alignment: float | None
    """mean ‖x − y‖² of pairs with gold > 4; None where there is none."""
    uniformity: float
    """log mean exp(−2 ‖x − y‖²) over all pairs of sentences."""
    mean_cosine: float
    """Anisotropy: mean cosine of two different sentences; 0 for an isotropic cloud."""
    top_component: float
    """Fraction of the variance on the first principal axis, 0 to 1."""
    effective_rank: float
    """exp of the entropy of the variance over principal axes: how many dimensions are used."""
    hubness: float
    """Skewness of the 10-occurrence: how unequally sentences are others' neighbours."""
    largest_hub: int
    """How many of the others have the commonest neighbour among their ten nearest."""
    antihubs: float
    """Fraction of sentences that are among the ten nearest neighbours of no sentence, 0 to 1."""
    sentences: int


class MtebResult(Result):
    """A task of the mteb package: its main score × 100."""

    kind: Literal["mteb"] = "mteb"
    main_score: float
    metric: str
    mteb_version: str


TaskResult = Annotated[
    StsResult | TransferResult | RetrievalResult | CaptionsResult | GeometryResult | MtebResult,
    Field(discriminator="kind"),
]


class Failed(Result):
    """A task that has no score, and why."""

    task: str
    reason: str
    exit_code: Annotated[int, Field(exclude=True)] = 1
    """Of the error that it was; not written."""


class WorstPair(Result):
    """A pair whose place among the cosines is far from its place among the gold scores."""

    first: str
    second: str
    gold: float
    cosine: float
    subset: str
    rank_error: float
    """(rank by cosine − rank by gold) / pairs, −1 to 1: positive is overrated by the model."""


class PairDetails(Result):
    """Gold and cosine of every pair of an STS task, in the order of the files."""

    gold: tuple[float, ...]
    cosine: tuple[float, ...]
    subset_sizes: Mapping[str, int]
    """Subset -> number of its pairs, in order: the first so many rows are the first subset's."""
    aggregation: Annotated[Literal["all", "groups"], Field(exclude_if=lambda value: value == "all")] = "all"
    worst: tuple[WorstPair, ...]


class EmbeddingMap(Result):
    """Sentences of several tasks in the plane."""

    method: str
    """`pca`."""
    x: tuple[float, ...]
    y: tuple[float, ...]
    task: tuple[str, ...]


class Queries(Result):
    """How each query of a task on one's own images came out, for tests between models."""

    image: tuple[int, ...]
    """The image that each query is of, by its number in the set; resampled together."""
    values: Mapping[str, tuple[float, ...]]
    """Measure -> × 100 for each query; the score is their mean."""


class Details(Result):
    """What plots and tests between models are made of."""

    queries: Mapping[str, tuple[Queries, ...]] = {}
    """Task -> one entry a direction."""

    sts: Mapping[str, PairDetails] = {}
    transfer: Mapping[str, str] = {}
    """Task -> one character an example, `1` where the classifier was right."""
    map: EmbeddingMap | None = None


class Settings(Result):
    """What a score depends on besides the model's files."""

    pooling: str | None = None
    num_layers: int | None = None
    prompt: str | None = None
    """Name or text as it was asked for, empty for none; None is the model's own default."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the vectors were computed in."""
    classifier: str | None = None
    data_changed: tuple[str, ...] = ()
    """Official files that differ and were scored all the same, because the user said so."""
    overlap_with: str | None = None


class Evaluation(Result):
    """The scores of one model."""

    format: Literal["dalr-evaluation"] = "dalr-evaluation"
    version: int = VERSION
    model: str
    model_sha256: str | None = None
    created: str
    """ISO 8601, UTC."""
    dalr: str
    settings: Settings = Settings()
    tasks: Mapping[str, TaskResult]
    sts_avg: Correlation100 | None
    """Mean `spearman` of the seven STS tasks; None unless all are there."""
    transfer_avg: Percent | None
    """Mean `acc` of the seven transfer tasks; None unless all are there."""
    transfer_devavg: Percent | None
    failed: tuple[Failed, ...] = ()
    details: Details = Details()

    def to_frame(self) -> pandas.DataFrame:
        """One row per task: `task`, and every number of its result in a column of its own.

        Raises:
            ConfigError: pandas is not installed.
        """
        return data_frame(
            {"task": name, **result.model_dump(mode="json", by_alias=True, exclude={"subsets"})}
            for name, result in self.tasks.items()
        )


class Comparison(Result):
    """A paired bootstrap between two models on one task: both are scored on the same resampled items."""

    task: str
    metric: str
    a: str
    b: str
    difference: float
    """Score of a minus score of b."""
    interval: tuple[float, float]
    p_value: float
    """Two-sided: how often a resampled difference lies on the other side of 0."""


class Evaluations(Result):
    """Several models on the same tasks."""

    format: Literal["dalr-evaluations"] = "dalr-evaluations"
    version: int = VERSION
    models: tuple[Evaluation, ...]
    comparisons: tuple[Comparison, ...] = ()
    failed: tuple[Failed, ...] = ()
    """Models that have no scores; `task` is the model's name."""
    verdict: Annotated[tuple[str, ...], Field(exclude_if=lambda value: not value)] = ()
    """What `dalr compare` says of the first model, in sentences."""


def sts_average(tasks: Mapping[str, TaskResult]) -> float | None:
    scores = [result.spearman for name in STS_TASKS if isinstance(result := tasks.get(name), StsResult)]
    return sum(scores) / len(scores) if len(scores) == len(STS_TASKS) else None


def transfer_average(tasks: Mapping[str, TaskResult], metric: Literal["acc", "devacc"]) -> float | None:
    results = [result for name in TRANSFER_TASKS if isinstance(result := tasks.get(name), TransferResult)]
    if len(results) < len(TRANSFER_TASKS):
        return None
    scores = [result.acc if metric == "acc" else result.devacc for result in results]
    return sum(scores) / len(scores)


def merged(earlier: Evaluation, later: Evaluation) -> Evaluation:
    """`later` with the tasks that only `earlier` has, if both are of the same model under the same settings."""
    changed = tuple(dict.fromkeys((*earlier.settings.data_changed, *later.settings.data_changed)))
    before, settings = (each.settings.model_copy(update={"data_changed": changed}) for each in (earlier, later))
    if (earlier.model_sha256, before) != (later.model_sha256, settings):
        return later
    tried_again = {each.task for each in later.failed}
    earlier_failed = [each for each in earlier.failed if each.task not in tried_again]
    tasks = {**earlier.tasks, **later.tasks}
    return later.model_copy(
        update={
            "settings": settings,
            "tasks": tasks,
            "sts_avg": sts_average(tasks),
            "transfer_avg": transfer_average(tasks, "acc"),
            "transfer_devavg": transfer_average(tasks, "devacc"),
            "failed": tuple(each for each in (*earlier_failed, *later.failed) if each.task not in tasks),
            "details": Details(
                sts={**earlier.details.sts, **later.details.sts},
                transfer={**earlier.details.transfer, **later.details.transfer},
                queries={**earlier.details.queries, **later.details.queries},
                map=later.details.map or earlier.details.map,
            ),
        }
    )


def write_results(path: Path, results: Evaluation | Evaluations) -> None:
    """One JSON file; long lists stand on one line each, so that the scores can be read by eye."""
    tree = results.model_dump(mode="json", by_alias=True)
    write_text(path, _compact_lists(tree) + "\n")


def read_results(path: Path) -> tuple[list[Evaluation], list[Comparison]]:
    """Evaluations and comparisons of a result file.

    Raises:
        DataError: not a result file, or of a version that this dalr does not know.
    """
    where = str(path)
    try:
        tree = json.loads(regular(path).read_bytes())
    except OSError as error:
        raise DataError(Problem(where=where, what=f"cannot be read: {error.strerror}")) from None
    except (ValueError, RecursionError) as error:
        what = f"expected a run folder, or a file that `dalr evaluate --json` wrote; not JSON: {error}"
        raise DataError(Problem(where=where, what=what)) from None
    kinds: Mapping[str, type[Evaluation | Evaluations]] = {
        "dalr-evaluation": Evaluation,
        "dalr-evaluations": Evaluations,
    }
    found = str(tree.get("format")) if isinstance(tree, dict) else "none"
    if found not in kinds:
        what = f"expected a file that `dalr evaluate --json` wrote (format {FORMAT}), found format {found!r}"
        raise DataError(Problem(where=where, what=what))
    if not isinstance(tree.get("version"), int) or tree["version"] > VERSION:
        what = f"version {tree.get('version')!r}, but this dalr reads up to {VERSION}; update dalr"
        raise DataError(Problem(where=where, what=what))
    try:
        read = kinds[found].model_validate(tree)
    except ValidationError as error:
        raise DataError(
            [
                Problem(where=f"{path}: {'.'.join(map(str, entry['loc']))}", what=entry["msg"])
                for entry in error.errors()
            ]
        ) from None
    if isinstance(read, Evaluations):
        return list(read.models), list(read.comparisons)
    assert isinstance(read, Evaluation)
    return [read], []


def _compact_lists(value: object, depth: int = 0) -> str:
    inner = "  " * (depth + 1)
    if isinstance(value, dict) and value:
        entries = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {_compact_lists(entry, depth + 1)}"
            for key, entry in value.items()
        ]
        return "{\n" + ",\n".join(entries) + "\n" + "  " * depth + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        entries = [inner + _compact_lists(entry, depth + 1) for entry in value]
        return "[\n" + ",\n".join(entries) + "\n" + "  " * depth + "]"
    return json.dumps(value, ensure_ascii=False)
