"""What is a report made of? Models with their scores, where those came from, and how the models trained.

A model is called by the shortest end of its path that tells it from the others; the whole name stands in the
report's provenance. Two results of one model are distinguished by the settings in which they differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from dalr.errors import ConfigError, DalrError, DataError, Problem
from dalr.evaluation.results import RUN_RESULT, Comparison, Evaluation, merged, read_results
from dalr.io.paths import exists, is_dir, is_file, resolve
from dalr.models.absent import no_such
from dalr.report.history import History, read_history


@dataclass(frozen=True, kw_only=True)
class ReportedModel:
    """One model of the report."""

    label: str
    number: int
    """Its place, from 0: the same colour everywhere."""
    source: Path
    """The file or run folder that was named."""
    evaluation: Evaluation | None
    """None for a run that was not evaluated."""
    history: History | None
    """None for scores without a run folder."""

    @property
    def setting(self) -> str:
        """How the model was used, where that is not as it stands in its files; empty where it is."""
        if self.evaluation is None:
            return ""
        settings = self.evaluation.settings
        layers = f"first {settings.num_layers} layers" if settings.num_layers is not None else ""
        pooling = f"{settings.pooling} pooling" if settings.pooling is not None else ""
        prompt = f"prompt {settings.prompt!r}" if settings.prompt is not None else ""
        precision = settings.precision if settings.precision != "fp32" else ""
        return ", ".join(filter(None, (layers, pooling, prompt, precision)))


@dataclass(frozen=True, kw_only=True)
class NamedComparison:
    """A comparison, with the labels of its two models."""

    a: str
    b: str
    result: Comparison


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Everything that was read."""

    models: tuple[ReportedModel, ...]
    comparisons: tuple[NamedComparison, ...]

    @property
    def evaluated(self) -> list[tuple[ReportedModel, Evaluation]]:
        return [(each, each.evaluation) for each in self.models if each.evaluation is not None]

    @property
    def trained(self) -> list[tuple[ReportedModel, History]]:
        return [(each, each.history) for each in self.models if each.history is not None]


@dataclass(frozen=True, kw_only=True)
class _Found:
    source: Path
    evaluation: Evaluation | None
    history: History | None

    @property
    def name(self) -> str:
        if self.history is not None:
            return resolve(self.history.folder).as_posix()
        assert self.evaluation is not None
        return self.evaluation.model


def read_sources(paths: Sequence[Path]) -> Sources:
    """Read result files (`dalr evaluate --json`) and run folders, in the order given.

    Raises:
        ConfigError: nothing was named, or something twice.
        DataError: a path is neither, or what lies there cannot be read; all of them at once.
    """
    if not paths:
        raise ConfigError(Problem(where="RUN|JSON", what="name at least one run folder or result file"))
    twice = sorted({str(path) for path in paths if [resolve(p) for p in paths].count(resolve(path)) > 1})
    if twice:
        raise ConfigError([Problem(where=name, what="named more than once") for name in twice])
    problems: list[Problem] = []
    found: list[_Found] = []
    comparisons: dict[Path, list[Comparison]] = {}
    for path in paths:
        try:
            more, compared = _read(path)
        except DataError as error:
            problems += error.problems
            continue
        found += more
        comparisons[path] = compared
    if problems:
        raise DataError(problems)
    found = _each_model_once(found)
    labels = distinct_labels([each.name for each in found], [_settings(each) for each in found])
    models = tuple(
        ReportedModel(
            label=label, number=number, source=each.source, evaluation=each.evaluation, history=each.history
        )
        for number, (label, each) in enumerate(zip(labels, found, strict=True))
    )
    return Sources(models=models, comparisons=tuple(_named(comparisons, models)))


def _each_model_once(found: Sequence[_Found]) -> list[_Found]:
    """A run and a result file that hold the same model under the same settings become one: the file's scores, which
    its comparisons belong to, those that only the run has, and the run's training."""
    kept: list[_Found] = []
    for each in found:
        place = next((place for place, other in enumerate(kept) if _is_same_model(each, other)), None)
        if place is None:
            kept.append(each)
            continue
        run, file = (each, kept[place]) if each.history is not None else (kept[place], each)
        assert run.evaluation is not None
        assert file.evaluation is not None
        kept[place] = replace(file, evaluation=merged(run.evaluation, file.evaluation), history=run.history)
    return kept


def _is_same_model(one: _Found, other: _Found) -> bool:
    """Whether one is of a run and the other of a file, of the same weights under the same settings."""
    if one.evaluation is None or other.evaluation is None or (one.history is None) == (other.history is None):
        return False
    a, b = one.evaluation, other.evaluation
    return a.model_sha256 is not None and (a.model_sha256, a.settings) == (b.model_sha256, b.settings)


def _read(path: Path) -> tuple[list[_Found], list[Comparison]]:
    if not exists(path):
        raise DataError(Problem(where=str(path), what=no_such(path, "run or result file")))
    if not is_dir(path):
        evaluations, comparisons = _read_results(path)
        return [_Found(source=path, evaluation=each, history=None) for each in evaluations], comparisons
    if not is_file(path / "run.json"):
        what = "expected a run folder (with run.json) or a file of `dalr evaluate --json`, found another folder"
        raise DataError(Problem(where=str(path), what=what))
    problems: list[Problem] = []
    history: History | None = None
    evaluations, comparisons = [], []
    try:
        history = read_history(path)
    except DalrError as error:
        problems += error.problems
    try:
        if exists(path / RUN_RESULT):
            evaluations, comparisons = _read_results(path / RUN_RESULT)
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    first = _Found(source=path, evaluation=evaluations[0] if evaluations else None, history=history)
    others = [_Found(source=path, evaluation=each, history=None) for each in evaluations[1:]]
    return [first, *others], comparisons


def _read_results(path: Path) -> tuple[list[Evaluation], list[Comparison]]:
    """A result file, its lists as long as each other: a figure of half the pairs would look like any other."""
    evaluations, comparisons = read_results(path)
    problems = []
    for each in evaluations:
        lists = {f"details.sts.{task}": (pairs.gold, pairs.cosine) for task, pairs in each.details.sts.items()}
        plan = each.details.map
        for name, columns in (lists | ({"details.map": (plan.x, plan.y, plan.task)} if plan else {})).items():
            lengths = [len(column) for column in columns]
            if len(set(lengths)) > 1 or not lengths[0]:
                found = " and ".join(map(str, lengths))
                what = f"expected lists of one length, with an entry or more; found {found} for {each.model}"
                problems.append(Problem(where=f"{path}: {name}", what=what))
    if problems:
        raise DataError(problems)
    return evaluations, comparisons


def _settings(found: _Found) -> dict[str, str]:
    """What may tell two results of one model apart."""
    if found.evaluation is None:
        return {}
    settings = found.evaluation.settings
    return {
        "layers": f"{settings.num_layers} layers" if settings.num_layers is not None else "all layers",
        "pooling": f"{settings.pooling or 'own'} pooling",
        "prompt": f"prompt {settings.prompt!r}" if settings.prompt is not None else "own prompt",
        "precision": settings.precision,
        "classifier": settings.classifier or "",
        "file": found.source.name,
    }


def distinct_labels(names: Sequence[str], settings: Sequence[dict[str, str]]) -> list[str]:
    """A short label for each name, no two alike: ends of paths, then settings, then numbers."""
    parts = [_parts(name) for name in names]
    lengths = [1] * len(names)

    def tails() -> list[str]:
        return ["/".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]

    while True:
        labels = tails()
        longer = [
            index
            for index, label in enumerate(labels)
            if lengths[index] < len(parts[index])
            and any(label == other and parts[index] != parts[at] for at, other in enumerate(labels))
        ]
        if not longer:
            break
        for index in longer:
            lengths[index] += 1
    for key in ("layers", "pooling", "prompt", "precision", "classifier", "file"):
        alike = [[at for at, other in enumerate(labels) if other == label] for label in labels]
        labels = [
            f"{label} ({settings[index][key]})"
            if len({settings[at].get(key) for at in alike[index]}) > 1 and settings[index].get(key)
            else label
            for index, label in enumerate(labels)
        ]
    counts = {label: labels.count(label) for label in labels}
    seen: dict[str, int] = {}
    for index, label in enumerate(labels):
        if counts[label] > 1:
            seen[label] = seen.get(label, 0) + 1
            labels[index] = f"{label} #{seen[label]}"
    return labels


def _parts(name: str) -> list[str]:
    """Folders of a path or hub id; `model`, as every run calls its product, says nothing."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".")]
    if len(parts) > 1 and parts[-1] == "model":
        parts = parts[:-1]
    return parts or [name or "unnamed"]


def _named(
    comparisons: Mapping[Path, Sequence[Comparison]], models: Sequence[ReportedModel]
) -> list[NamedComparison]:
    """A comparison is between models of its own file: another file may hold the same model with other settings."""
    named = []
    for source, compared in comparisons.items():
        labels = {s.evaluation.model: s.label for s in models if s.evaluation is not None and s.source == source}
        named += [NamedComparison(a=labels.get(c.a, c.a), b=labels.get(c.b, c.b), result=c) for c in compared]
    return named
