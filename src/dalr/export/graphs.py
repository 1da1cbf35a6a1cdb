"""`dalr export --format onnx|openvino`: graphs, tokenizer and runner in a sealed folder, or nothing.

DIR/onnx/model.onnx        ids, mask -> sentence_embedding, last_hidden_state
DIR/onnx/model_int8.onnx   with --int8
DIR/onnx/grounding.onnx    of a run with grounding heads: ids, mask -> grounding_embedding
DIR/openvino/*.xml, .bin   the same for --format openvino
DIR/run.py                 sentences to vectors without torch
DIR/tokenizer.json, ...    the model's small files, which servers read
DIR/manifest.json          checksums, and what the checks found
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dalr.errors import ConfigError, NumericsError, Problem
from dalr.export.int8 import StsLoss, load_sts_tasks, measured_loss, write_int8
from dalr.export.onnx_graph import open_onnx, require_onnx, write_onnx
from dalr.export.runner import runner_text, write_tokenizer
from dalr.export.speed import LENGTH, ROWS, seconds_of
from dalr.io.console import Console
from dalr.io.lock import locked_output
from dalr.io.sealed import write_sealed
from dalr.models.choices import PoolingMode

if TYPE_CHECKING:
    from dalr.evaluation.sts import ScoredPairs
    from dalr.export.graph import GroundingGraph, SentenceGraph
    from dalr.export.parity import Runner
    from dalr.export.subject import Subject

GraphFormat = Literal["onnx", "openvino"]
EXPORT, VERSION = "dalr-export", 1
SENTENCES = (
    "A dog jumps into the sea.",
    "Two children, one in red, are playing on the beach at sunset",
    "",
    "Ein Hund läuft — 犬が走る — ½ 😀",
    "x.png",
    "a long caption " * 400,
)
"""What the tokenizer beside the graph is compared on: short, empty, other scripts, and longer than any input."""
_GAIN = 1.05
"""Times as fast, from which int8 is called a gain."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and what its checks found."""

    out: Path
    files: dict[str, float] = field(default_factory=dict)
    """Graph -> its largest difference from PyTorch."""
    longest: int
    seconds: dict[str, float]
    """Of a batch on this processor, by `torch`, the format, `int8`."""
    threads: int
    loss: StsLoss | None
    int8_cosine: float | None
    """Lowest cosine of an int8 vector and its fp32 vector, over the sentences of the check."""

    def lines(self) -> list[str]:
        """For the terminal."""
        shapes = f"(1, 1), (1, 7), (5, {self.longest})"
        lines = [
            f"{self.out / name}: differs from PyTorch by at most {worst:.1e} at {shapes}"
            for name, worst in self.files.items()
        ]
        slowest = self.seconds["torch"]
        ratios = ", ".join(f"{name} {slowest / each:.2f}x" for name, each in self.seconds.items())
        lines.append(f"speed here, {ROWS} rows of {LENGTH} tokens, {self.threads} threads: {ratios}")
        if "int8" in self.seconds:
            lines += [self._int8_line()]
        return lines

    def _int8_line(self) -> str:
        gain = self.seconds["onnx"] / self.seconds["int8"]
        speed = f"{gain:.2f} times as fast as fp32 here" if gain >= _GAIN else "no gain on this processor"
        if self.loss is None:
            return f"int8: {speed}; the loss in STS average is not measured: name the STS sets with --data"
        before, after = (float(np.mean(list(each.values()))) for each in (self.loss.fp32, self.loss.int8))
        return f"int8: {speed}; STS average {before:.2f} -> {after:.2f} (loses {self.loss.average:.2f})"


def export_graphs(
    model: str,
    out: Path,
    *,
    format: GraphFormat,
    int8: bool = False,
    data: Path | None = None,
    pooling: PoolingMode | None = None,
    console: Console,
) -> Exported:
    """Write the graphs of a run or a model, checked against PyTorch.

    Raises:
        ConfigError: packages that are not installed, options that do not fit together, an unknown model.
        ModelFileError: a model that cannot be loaded or exported.
        NumericsError: a graph computes something else, or int8 loses too much; nothing is written.
        StorageError: `out` holds something else, or cannot be written.
    """
    if int8 and format != "onnx":
        raise ConfigError(Problem(where="--int8", what=f"is written for onnx, not for {format}; say --format onnx"))
    if data is not None and not int8:
        raise ConfigError(Problem(where="--data", what="is what the loss of --int8 is measured on; say --int8"))
    require_onnx(format=format)
    tasks = load_sts_tasks(data) if data is not None else []
    from dalr.export.subject import load_subject

    subject = load_subject(model, pooling)
    work = _Work(subject=subject, format=format, int8=int8, tasks=tasks, console=console, where=f"model {model!r}")
    record: dict[str, Any] = {"model_sha256": subject.sha256, "normalized": subject.normalized}
    found: list[Exported] = []

    def fill(folder: Path) -> None:
        found.append(work.fill(folder, out))
        record.update(_as_record(found[0]))  # the manifest is written after this

    with locked_output(out):
        write_sealed(out, format=EXPORT, version=VERSION, metadata=record, fill=fill)
    return found[0]


@dataclass(frozen=True, kw_only=True)
class _Work:
    subject: Subject
    format: GraphFormat
    int8: bool
    tasks: list[ScoredPairs]
    console: Console
    where: str

    def fill(self, folder: Path, out: Path) -> Exported:
        import torch

        from dalr.export.graph import GroundingGraph, SentenceGraph
        from dalr.export.parity import LONGEST_CHECKED
        from dalr.models.prompts import prompt_of

        encoder, heads = self.subject.encoder, self.subject.heads
        prompt, threads = prompt_of(encoder), torch.get_num_threads()
        _save_small_files(self.subject, folder)
        tokenizer = write_tokenizer(
            encoder, folder / "tokenizer.json", longest=self.subject.longest, where=self.where
        )
        graph = SentenceGraph(encoder)
        place, run, worst = self._written(graph, folder, "model")
        files = {place: worst}
        _require_same_sentences(self.subject, run, tokenizer, prompt)
        (folder / "run.py").write_text(runner_text(self.format, place, prompt), encoding="utf-8")
        if heads is not None:
            place, _, worst = self._written(GroundingGraph(encoder, heads), folder, "grounding")
            files[place] = worst
        runs: dict[str, Callable[[], object]] = dict(_timed(graph, self.format, run))
        loss, cosine = None, None
        if self.int8:
            quantised = folder / "onnx" / "model_int8.onnx"
            write_int8(folder / "onnx" / "model.onnx", quantised)
            small = open_onnx(quantised, threads=threads)
            runs["int8"] = _timed(graph, "int8", small)["int8"]
            loss, cosine = self._loss(run, small, tokenizer, prompt)
        return Exported(
            out=out,
            files=files,
            longest=min(self.subject.longest, LONGEST_CHECKED),
            seconds=seconds_of(runs),
            threads=threads,
            loss=loss,
            int8_cosine=cosine,
        )

    def _written(self, graph: SentenceGraph | GroundingGraph, folder: Path, name: str) -> tuple[str, Runner, float]:
        """Its place in the folder, what runs it, and its difference from PyTorch."""
        import torch

        from dalr.export.parity import require_parity

        self.console.detail(f"exporting {name}")
        threads, path = torch.get_num_threads(), folder / "onnx" / f"{name}.onnx"
        path.parent.mkdir(exist_ok=True)
        write_onnx(graph, path, where=self.where)
        if self.format == "onnx":
            run = open_onnx(path, threads=threads)
        else:
            from dalr.export.openvino_graph import convert_onnx, open_openvino

            source, path = path, folder / "openvino" / f"{'openvino_' if name == 'model' else ''}{name}.xml"
            path.parent.mkdir(exist_ok=True)
            convert_onnx(source, path, where=self.where)
            shutil.rmtree(source.parent)
            run = open_openvino(path, threads=threads)
        place = path.relative_to(folder).as_posix()
        worst = require_parity(graph, run, self.subject.encoder, longest=self.subject.longest, what=place)
        return place, run, worst

    def _loss(self, fp32: Runner, int8: Runner, tokenizer: Any, prompt: str) -> tuple[StsLoss | None, float]:
        from dalr.evaluation.metrics import unit_rows
        from dalr.export.embedding import embed_with

        def embed(run: Runner) -> Callable[[list[str]], np.ndarray]:
            return lambda sentences: embed_with(run, tokenizer, sentences, prompt=prompt)

        a, b = (unit_rows(embed(run)(list(SENTENCES))) for run in (fp32, int8))
        cosine = float((a * b).sum(axis=1).min())
        if not self.tasks:
            return None, cosine
        return measured_loss(self.tasks, fp32=embed(fp32), int8=embed(int8), console=self.console), cosine


def _save_small_files(subject: Subject, folder: Path) -> None:
    """Configuration, tokenizer, pooling: what servers read beside a graph; not the weights, which are in it."""
    from dalr.models.export import save_encoder

    save_encoder(subject.encoder, folder)
    for path in [*folder.rglob("model*.safetensors*")]:
        path.unlink()


def _require_same_sentences(subject: Subject, run: Runner, tokenizer: Any, prompt: str) -> None:
    """From text to vector as the runner goes, against the way of every other command.

    Raises:
        NumericsError: they differ.
    """
    from dalr.evaluation.metrics import unit_rows
    from dalr.export.embedding import embed_with
    from dalr.export.parity import TOLERANCE
    from dalr.models.embedding import embed

    expected = embed(subject.encoder, SENTENCES)
    expected = unit_rows(expected) if subject.normalized else expected
    found = embed_with(run, tokenizer, SENTENCES, prompt=prompt)
    gap = np.abs(expected - found).max(axis=1) / max(1.0, float(np.abs(expected).max()))
    if not gap.max() <= TOLERANCE:
        sentence = SENTENCES[int(gap.argmax())]
        raise NumericsError(
            f"the vector of {sentence[:40]!r} differs by {gap.max():.1e} from PyTorch, expected at most "
            f"{TOLERANCE:.0e}: the tokenizer file does not do what the model's tokenizer does; nothing was written"
        )


def _timed(graph: SentenceGraph, name: str, run: Runner) -> dict[str, Callable[[], object]]:
    """PyTorch and a graph on the same batch."""
    from dalr.export.parity import expected_of

    ids = np.ones((ROWS, LENGTH), np.int64)
    return {
        "torch": lambda: expected_of(graph, ids, ids),
        name: lambda: run({"input_ids": ids, "attention_mask": ids}),
    }


def _as_record(exported: Exported) -> dict[str, Any]:
    loss = exported.loss
    return {
        "differences_from_pytorch": exported.files,
        "longest": exported.longest,
        "int8_sts": {"fp32": dict(loss.fp32), "int8": dict(loss.int8)} if loss is not None else None,
        "int8_lowest_cosine": exported.int8_cosine,
    }
