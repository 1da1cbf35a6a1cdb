"""`dalr encode`: a file of any size to vectors, one row in, one row out, in order; resumed after a kill.

```
dalr.encode("runs/x", ["a dog runs", "two cats sleep"])        # an array
dalr.encode("runs/x", "captions.jsonl", out="vectors.npy")     # a file
```
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Shaped

from dalr.data.rows import is_blank
from dalr.errors import ConfigError, CorruptFileError, DataError, Problem, StorageError
from dalr.inference.encoders import ImageEncoder, OnLong, RowEncoder, evaluation_mode, open_text_encoder
from dalr.inference.outputs import Kind, kind_of, sidecar, write_output
from dalr.inference.precision import Precision, Ranges, shortened, stored
from dalr.inference.rows import PART_ROWS, STDIN, InputFormat, Part, Row, Source, parts
from dalr.inference.work import Kept, Work
from dalr.io.atomic import remedy
from dalr.io.console import Console
from dalr.io.lock import PATIENCE_SECONDS, locked_output
from dalr.io.on_ray import TAKEOVER_SECONDS, compute_on_ray, require_address
from dalr.io.paths import exists, expanded, is_file, regular, require_place_for_file
from dalr.io.records import parse_record
from dalr.io.share import Share
from dalr.models.choices import PoolingMode
from dalr.models.config import EncoderConfig
from dalr.models.reference import inside_run
from dalr.recipe.plugins import load_plugins

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MERGE = Share(number=0, of=1)


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """How vectors are made; the options of `dalr encode`."""

    precision: Precision = "fp32"
    normalize: bool | None = None
    """Scale vectors to length 1; None does what the model does."""
    truncate_dim: int | None = None
    max_tokens: int | None = None
    on_long: OnLong = "truncate"
    pooling: PoolingMode | None = None
    prompt: str | None = None
    revision: str | None = None
    device: str = "auto"
    ranges: Path | None = None
    """int8: the `OUT.json` of other vectors, whose ranges are taken."""
    part_rows: int = PART_ROWS
    console: Console = field(default_factory=Console)

    def encoder_config(self, model: str) -> EncoderConfig:
        return EncoderConfig(
            model=inside_run(model),
            revision=self.revision,
            pooling=self.pooling,
            max_tokens=self.max_tokens,
            prompt=self.prompt,
        )


@dataclass(frozen=True, kw_only=True)
class EncodeReport:
    """What came of an input."""

    out: Path
    rows: int
    dim: int
    cut: int
    """Rows that were longer than the model reads."""
    blank: int
    computed: int
    """Rows that went through the model now; the others were there already."""
    merged: bool = True
    """False after one of several parts."""

    def lines(self) -> list[str]:
        """For people."""
        found = [f"{self.out}: {self.rows} rows of {self.dim} numbers"]
        if not self.merged:
            found = [
                f"{self.out}: this part is done ({self.rows} rows); then: dalr encode --merge --out {self.out}"
            ]
        if self.cut:
            found.append(f"{self.cut} rows were longer than the model reads and were cut")
        if self.blank:
            rows = "row is" if self.blank == 1 else "rows are"
            found.append(f"{self.blank} {rows} blank; each has the vector of an empty sentence")
        return found


def encode_file(
    model: str,
    source: Source,
    out: Path,
    options: EncodeOptions,
    *,
    share: Share = MERGE,
    resume: bool = False,
    patience: float = PATIENCE_SECONDS,
) -> EncodeReport:
    """Encode an input into `out`; with a share of several, only into finished parts beside it.

    `patience` is how many seconds another process that works on the same share has to end.

    Raises:
        ConfigError, DataError, ModelFileError, StorageError: as the messages say; finished parts are kept.
    """
    kind = _claimable(source, out, options, resume)
    work = Work(out=out)
    lock = out if share.of == 1 else work.folder / share.name
    with remedy("choose another --out"), locked_output(lock, wait=patience):
        encoder = open_encoder(model, source, options)
        making = making_of(encoder, options, kind)
        if resume and share.of == 1 and not exists(work.folder) and is_file(sidecar(out)):
            return _already_made(out, source, making, options)
        work.begin(making, share, resume=resume)
        if share.of == 1:
            work.sweep()
        job = Job(encoder=encoder, work=work, share=share, options=options, source=source)
        try:
            with evaluation_mode(encoder):
                computed = job.run()
        except BaseException:
            if not work.numbers():
                work.remove()
            raise
        if share.of > 1:
            return EncodeReport(
                out=out, rows=job.rows, dim=job.dim, cut=job.cut, blank=job.blank, computed=computed, merged=False
            )
        return _merged(out, work, computed)


def _claimable(source: Source, out: Path, options: EncodeOptions, resume: bool) -> Kind:
    """The kind of an output that can be written, and is not there."""
    kind = kind_of(out, options.precision)
    if kind == "npy" and (source.kind == "images" or source.id_column is not None):
        what = "a matrix has no ids; name a .parquet file or a folder (a feature store) for rows with ids"
        raise ConfigError(Problem(where="--out", what=what))
    require_place_for_file(out, "--out") if kind != "store" else None
    if exists(out, StorageError) and not resume:
        raise StorageError(f"{out} already exists; nothing was overwritten: delete it, or choose another --out")
    return kind


@dataclass(frozen=True, kw_only=True)
class EncodeRequest:
    """What `dalr encode` asks for, as a worker of a cluster carries it out."""

    model: str
    source: Source
    out: Path
    options: EncodeOptions
    plugins: tuple[str, ...] = ()
    """Of `--plugin`, which the command has loaded."""

    def part_on_ray(self, share: Share, console: Console, cores: int) -> bool:
        """The parts of a share on a worker."""
        load_plugins(self.plugins)
        options = replace(self.options, console=console)
        encode_file(self.model, self.source, self.out, options, share=share, resume=True, patience=TAKEOVER_SECONDS)
        return True


def encode_on_ray(
    model: str,
    source: Source,
    out: Path,
    options: EncodeOptions,
    address: str,
    *,
    resume: bool = False,
    plugins: tuple[str, ...] = (),
) -> EncodeReport:
    """The same as `encode_file`, by the workers of a cluster.

    Raises:
        ConfigError, DataError, ModelFileError, StorageError: as the messages say; finished parts are kept.
    """
    require_address(address, options.device)
    if source.path == STDIN:
        raise ConfigError(Problem(where="INPUT, --ray", what="every worker reads the input: name a file, not -"))
    _claimable(source, out, options, resume)
    work = Work(out=out)
    if resume and not exists(work.folder) and is_file(sidecar(out)):
        return encode_file(model, source, out, options, resume=True)
    if not resume:
        work.require_none()
    with remedy("choose another --out"), locked_output(out):
        shares = compute_on_ray(
            EncodeRequest(model=model, source=source, out=out, options=options, plugins=plugins).part_on_ray,
            address,
            out=out,
            needs=[inside_run(model), source.path, *plugins, *([] if options.ranges is None else [options.ranges])],
            device=options.device,
            bar=("encode", "row"),
            console=options.console,
        )
        work.forget_shares(keep=shares)
        return _merged(out, work, 0)


def merge_parts(out: Path) -> EncodeReport:
    """Put together what `--part i/n` left beside `out`.

    Raises:
        ConfigError: parts are missing. CorruptFileError: one is damaged.
    """
    work = Work(out=out)
    making = work.making()
    kind_of(out, making["precision"])
    with remedy("choose another --out"), locked_output(out):
        return _merged(out, work, 0)


def _merged(out: Path, work: Work, computed: int) -> EncodeReport:
    count, making = work.complete(), work.making()
    rows = dim = 0
    for part in work.all(count):
        rows, dim = rows + len(part.ids), part.vectors.shape[1]
    ranges = work.ranges()
    stated = making | ({"ranges": ranges.as_json()} if ranges is not None else {})
    kind = kind_of(out, making["precision"])
    totals = write_output(out, kind, lambda: work.all(count), rows=rows, dim=dim, making=stated)
    work.remove()
    return EncodeReport(out=out, rows=rows, dim=dim, cut=totals.cut, blank=totals.blank, computed=computed)


def _already_made(out: Path, source: Source, making: dict[str, Any], options: EncodeOptions) -> EncodeReport:
    """Nothing to resume: the output is finished, if it was made of the same rows in the same way."""
    import hashlib

    made = parse_record(regular(sidecar(out)).read_bytes())
    digest = hashlib.sha256()
    for part in parts(source.rows(), size=options.part_rows):
        digest.update(part.sha256.encode())
    if made.get("input_sha256") != digest.hexdigest() or any(made.get(key) != making[key] for key in making):
        what = f"{out} is finished, and was made of another input or otherwise; delete it, or choose another --out"
        raise StorageError(what)
    options.console.say(f"{out} is already made")
    return EncodeReport(
        out=out, rows=made["rows"], dim=made["dim"], cut=made["cut_rows"], blank=made["blank_rows"], computed=0
    )


def open_encoder(model: str, source: Source, options: EncodeOptions) -> RowEncoder:
    """What encodes the rows of `source`.

    Raises:
        ConfigError: images, and a model that reads text alone.
    """
    config = options.encoder_config(model)
    if source.kind != "images":
        return open_text_encoder(config, device=options.device, bf16=options.precision == "bf16")
    from dalr.models.vision import is_image_model, load_vision_model

    if not is_image_model(config.model, config.revision):
        what = (
            f"{model} encodes sentences, and {source.path} is a folder of images; name an image model such as CLIP"
        )
        raise ConfigError(Problem(where="MODEL", what=what))
    if options.precision == "bf16":
        raise ConfigError(Problem(where="--precision", what="images are computed in fp32; leave bf16 out"))
    vision = load_vision_model(config.model, revision=config.revision, device=options.device)
    return ImageEncoder(vision=vision, root=Path(source.path))


def making_of(encoder: RowEncoder, options: EncodeOptions, kind: str) -> dict[str, Any]:
    """Everything that decides the bytes besides the input."""
    unit = encoder.normalized if options.normalize is None else options.normalize
    return {
        "model": dict(encoder.source),
        "normalized": unit,
        "precision": options.precision,
        "truncate_dim": options.truncate_dim,
        "part_rows": options.part_rows,
        "output": kind,
    }


@dataclass(kw_only=True)
class Job:
    """One pass over an input."""

    encoder: RowEncoder
    work: Work
    share: Share
    options: EncodeOptions
    source: Source
    rows: int = 0
    dim: int = 0
    cut: int = 0
    blank: int = 0

    def run(self) -> int:
        """Compute the parts that are missing; how many rows that were."""
        computed = total = 0
        with self.options.console.bar("encode", None, "row") as bar:
            for part in parts(self.source.rows(), size=self.options.part_rows):
                total = part.number + 1
                if part.number == 0:
                    self._calibrate(part)
                if not self.share.has(part.number):
                    continue
                kept = self.work.kept(part.number)
                if kept is None or kept.input_sha256 != part.sha256:
                    self.work.discard(part.number)
                    kept = self._compute(part)
                    computed += len(part.texts)
                    give_back_memory()
                self._count(kept)
                bar.update(self.rows)
        if not total:
            raise DataError(Problem(where=self.source.path, what="no rows; expected at least one sentence"))
        for number in self.work.numbers():
            if number >= total:
                self.work.discard(number)
        self.work.finish(self.share, total)
        return computed

    def _compute(self, part: Part) -> Kept:
        whole, cut = self._vectors(part)
        vectors = stored(whole, self.options.precision, self.work.ranges())
        blank = sum(map(is_blank, part.texts))
        self.work.keep(part, vectors, cut=cut, blank=blank)
        return Kept(ids=part.ids, vectors=vectors, input_sha256=part.sha256, cut=cut, blank=blank)

    def _vectors(self, part: Part) -> tuple[Float32[np.ndarray, "n d"], int]:
        encoded = self.encoder.encode(part.texts)
        require_not_cut(encoded.cut, part.ids, self.source.path, self.encoder.max_tokens, self.options)
        require_finite(encoded.vectors, part.ids, self.source.path)
        return finished(encoded.vectors, self.encoder, self.options), len(encoded.cut)

    def _calibrate(self, first: Part) -> None:
        """int8: the ranges are those of the first part, whichever process computes it."""
        if self.options.precision != "int8" or self.work.ranges() is not None:
            return
        if self.options.ranges is not None:
            ranges = read_ranges(self.options.ranges)
        else:
            ranges = Ranges.of(self._vectors(first)[0])
        self.work.keep_ranges(ranges)

    def _count(self, kept: Kept) -> None:
        self.rows, self.dim = self.rows + len(kept.ids), int(kept.vectors.shape[1])
        self.cut, self.blank = self.cut + kept.cut, self.blank + kept.blank


def give_back_memory() -> None:
    """Return freed memory to the system, where the C library can: after batches of a hundred shapes it holds a
    gigabyte in pieces that the next batches do not fit into.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def finished(
    vectors: Float32[np.ndarray, "n d"], encoder: RowEncoder, options: EncodeOptions
) -> Float32[np.ndarray, "n e"]:
    """Vectors of an encoder as asked for: shortened, and at length 1 where they are normalised.

    Raises:
        ConfigError: more dimensions are kept than there are.
    """
    if options.truncate_dim is not None and not 1 <= options.truncate_dim <= vectors.shape[1]:
        what = (
            f"expected 1 to {vectors.shape[1]}, the embedding dimension of the model, found {options.truncate_dim}"
        )
        raise ConfigError(Problem(where="--truncate-dim", what=what))
    unit = encoder.normalized if options.normalize is None else options.normalize
    return shortened(vectors, dim=options.truncate_dim, unit=unit)


def require_not_cut(
    cut: Sequence[int], ids: Sequence[str], where: str, limit: int | None, options: EncodeOptions
) -> None:
    """Refuse rows that are too long, where `on_long` is `error`."""
    if options.on_long == "error" and cut:
        from dalr.errors import few

        what = f"longer than {limit} tokens; shorten it, or say --on-long truncate"
        raise DataError(few(cut, lambda row: Problem(where=f"{where}: row {ids[row]}", what=what)))


def require_finite(vectors: np.ndarray, ids: Sequence[str], where: str) -> None:
    """Refuse vectors with NaN or infinity.

    Raises:
        NumericsError: naming the first row.
    """
    from dalr.errors import NumericsError

    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        what = "its vector is not finite; the model's weights or its precision do not suit it"
        raise NumericsError(Problem(where=f"{where}: row {ids[int(bad[0])]}", what=what, count=len(bad)))


def read_ranges(path: Path) -> Ranges:
    """The ranges that the `OUT.json` of int8 vectors states.

    Raises:
        DataError: it states none.
    """
    try:
        return Ranges.from_json(parse_record(regular(path).read_bytes())["ranges"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"expected the .json file beside int8 vectors of dalr encode ({error!s:.100})"
        raise DataError(Problem(where=str(path), what=what)) from None


def encode(
    model: str | Path | SentenceTransformer,
    inputs: str | Path | Iterable[str],
    *,
    out: str | Path | None = None,
    column: str = "text",
    id_column: str | None = None,
    format: InputFormat | None = None,
    precision: Precision = "fp32",
    normalize: bool | None = None,
    truncate_dim: int | None = None,
    max_tokens: int | None = None,
    on_long: OnLong = "truncate",
    pooling: PoolingMode | None = None,
    prompt: str | None = None,
    device: str = "auto",
    resume: bool = False,
    console: Console | None = None,
) -> Shaped[np.ndarray, "n d"] | EncodeReport:
    """Vectors of sentences, row i for sentence i: what `SentenceTransformer.encode` gives, over packed rows.

    Args:
        model: a run, a model folder, a hub id, or a SentenceTransformer in memory.
        inputs: sentences; or, with `out`, the path of a file or a folder of images.
        out: `.npy`, `.parquet` or a folder (a feature store); None returns an array.

    Raises:
        ConfigError, DataError, ModelFileError, StorageError: as the messages say.
    """
    options = EncodeOptions(
        precision=precision,
        normalize=normalize,
        truncate_dim=truncate_dim,
        max_tokens=max_tokens,
        on_long=on_long,
        pooling=pooling,
        prompt=prompt,
        device=device,
        console=console or Console(quiet=out is None),
    )
    if out is not None:
        if not isinstance(inputs, str | Path) or not isinstance(model, str | Path):
            what = "with out, name the model and the input by their paths; without it, an array is returned"
            raise ConfigError(Problem(where="out", what=what))
        source = Source(path=str(inputs), column=column, id_column=id_column, format=format)
        return encode_file(str(model), source, expanded(out, "out"), options, resume=resume)
    if isinstance(inputs, str | Path):
        what = "expected a list of sentences; the path of a file needs out"
        raise ConfigError(Problem(where="inputs", what=what))
    return _in_memory(model, list(inputs), options)


def _in_memory(
    model: str | Path | SentenceTransformer, sentences: list[str], options: EncodeOptions
) -> Shaped[np.ndarray, "n d"]:
    from dalr.inference.encoders import memory_encoder

    encoder: RowEncoder
    if isinstance(model, str | Path):
        encoder = open_text_encoder(
            options.encoder_config(str(model)), device=options.device, bf16=options.precision == "bf16"
        )
    else:
        encoder = memory_encoder(model, max_tokens=options.max_tokens, bf16=options.precision == "bf16")
    rows = (Row(str(number), text) for number, text in enumerate(sentences, start=1))
    done: list[np.ndarray] = []
    with evaluation_mode(encoder):
        for part in parts(rows, size=options.part_rows) if sentences else [Part(number=0, ids=(), texts=())]:
            encoded = encoder.encode(part.texts)
            require_not_cut(encoded.cut, part.ids, "sentences", encoder.max_tokens, options)
            require_finite(encoded.vectors, part.ids, "sentences")
            done.append(finished(encoded.vectors, encoder, options))
    whole = np.concatenate(done)
    ranges = None
    if options.precision == "int8":
        if not len(whole):
            raise DataError(Problem(where="sentences", what="int8 needs rows to measure its ranges on"))
        ranges = read_ranges(options.ranges) if options.ranges is not None else Ranges.of(whole)
    return stored(whole, options.precision, ranges)


def vectors_of(path: Path) -> np.ndarray:
    """The matrix of `dalr encode --out FILE.npy`, memory-mapped.

    Raises:
        CorruptFileError: not such a matrix.
    """
    try:
        found: np.ndarray = np.load(regular(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CorruptFileError(f"{path}: not an .npy matrix ({error!s:.120})") from None
    return found
