"""`dalr index`: rows that are searched many times, encoded once, with ids that outlive every change.

An index of sentences is searched by the model that made it. An index of a feature store of images, made with a run,
holds the images in the run's grounding space, where its sentences find them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from dalr.errors import ConfigError, DataError, Problem, StorageError, few
from dalr.evaluation.request import Request, locate
from dalr.features.store import FORMAT as STORE
from dalr.features.store import FeatureStore, open_store
from dalr.inference.encode import MERGE, EncodeOptions, Job, making_of, open_encoder
from dalr.inference.encoders import RowEncoder, evaluation_mode, open_text_encoder
from dalr.inference.index_folder import IndexFolder, Kind, Rows, open_index, require_faiss, write_index
from dalr.inference.nearest import unit
from dalr.inference.rows import Row, Source, parts
from dalr.inference.searcher import Hit
from dalr.inference.work import Work
from dalr.io.atomic import remedy
from dalr.io.lock import locked_output
from dalr.io.paths import exists, is_dir, is_file, regular, require_place_for_folder
from dalr.io.records import parse_record
from dalr.io.sealed import MANIFEST, file_sha256
from dalr.io.text import read_lines
from dalr.models.config import EncoderConfig
from dalr.models.heads import ground
from dalr.models.reference import inside_run

_NO_HEAD, _IMAGE_HEAD = "none", "image_grounding"
_BLOCK = 8_192


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """What an index came to."""

    out: Path
    rows: int
    dim: int
    kind: Kind
    recall: float | None
    deleted: int = 0

    def line(self) -> str:
        """For people."""
        said = f"{self.out}: {self.rows} rows of {self.dim} numbers, {self.kind}"
        if self.deleted:
            said += f", {self.deleted} deleted"
        return said if self.recall is None else f"{said}, recall@10 {100 * self.recall:.1f} % of exact search"


def build_index(
    model: str, source: Source, out: Path, options: EncodeOptions, *, kind: Kind = "exact", resume: bool = False
) -> IndexReport:
    """Encode an input and make an index of it; killed, it is resumed to the same bytes.

    Raises:
        ConfigError, DataError, ModelFileError, StorageError: as the messages say; finished parts are kept.
    """
    if kind != "exact":
        require_faiss()
    require_place_for_folder(out, "--out")
    if exists(out, StorageError):
        if not resume:
            raise StorageError(f"{out} already exists; nothing was overwritten: choose another --out, or use --add")
        if is_file(out / MANIFEST) and not exists(Work(out=out).folder):
            return _report(out)
    with remedy("choose another --out"), locked_output(out):
        if _is_store(source.path):
            return _of_images(model, open_store(Path(source.path)), out, kind)
        encoder = open_encoder(model, source, options)
        making = making_of(encoder, options, "index") | {"head": _NO_HEAD}
        work = Work(out=out, with_texts=True)
        work.begin(making, MERGE, resume=resume)
        work.sweep()
        job = Job(encoder=encoder, work=work, share=MERGE, options=options, source=source)
        try:
            with evaluation_mode(encoder):
                job.run()
        except BaseException:
            if not work.numbers():
                work.remove()
            raise
        rows = (Rows(ids=part.ids, texts=part.texts, vectors=part.vectors) for part in work.all(work.complete()))
        write_index(out, rows, kind=kind, count=job.rows, dim=job.dim, next_id=job.rows + 1, making=_stated(making))
        work.remove()
    return _report(out)


def change_index(
    model: str, out: Path, *, add: Source | None, delete: Path | None, options: EncodeOptions
) -> IndexReport:
    """Delete rows by their ids, then add others; rows that stay keep their ids.

    Raises:
        ConfigError: another model than the index was made with. DataError: ids that are not there, or there twice.
    """
    with remedy("choose another --out"), locked_output(out):
        index = open_index(out)
        gone = _listed(index, delete) if delete is not None else set[str]()
        keep = np.asarray([number for number in range(len(index)) if index.ids[number] not in gone], np.int64)
        added: list[Rows] = []
        next_id = index.next_id
        if add is not None:
            if index.making["head"] != _NO_HEAD:
                what = "an index of image vectors; make it again from the changed feature store"
                raise ConfigError(Problem(where=str(out), what=what))
            encoder = _encoder_of(index, model, options.device, packed=True)
            added = list(_encoded(encoder, add, options, start=next_id))
            next_id += sum(len(block.ids) for block in added)
        count = len(keep) + sum(len(block.ids) for block in added)
        if not count:
            raise DataError(Problem(where=str(out), what="no row would be left; delete the folder instead"))

        def rows() -> Iterator[Rows]:
            yield from index.blocks(keep)
            yield from added

        write_index(out, rows(), kind=index.kind, count=count, dim=index.dim, next_id=next_id, making=index.making)
    return _report(out, deleted=len(gone))


def search_index(index: Path, model: str, sentence: str, *, k: int = 10, device: str = "auto") -> list[Hit]:
    """The `k` rows of an index that are nearest to a sentence, encoded by the model that made it.

    Raises:
        ConfigError: another model. CorruptFileError: not an index.
    """
    if not sentence.strip():
        raise ConfigError(Problem(where="SENTENCE", what="expected words to search for, found none"))
    opened = open_index(index)
    query = query_vectors(opened, model, [sentence], device=device)
    numbers, scores = opened.search(query, k)
    return [
        _hit(opened, number, score, rank)
        for rank, (number, score) in enumerate(zip(numbers[0].tolist(), scores[0].tolist(), strict=True), start=1)
        if number >= 0
    ]


def query_vectors(
    index: IndexFolder, model: str, sentences: list[str], *, device: str = "auto"
) -> Float32[np.ndarray, "n d"]:
    """Sentences as queries of an index, at length 1.

    Raises:
        ConfigError: `model` is not the one that the index was made with.
    """
    encoder = _encoder_of(index, model, device, packed=False)
    with evaluation_mode(encoder):
        vectors = encoder.encode(sentences).vectors
    if index.making["head"] == _IMAGE_HEAD:
        heads = _heads_of(model)
        if file_sha256(heads) != index.making["heads_sha256"]:
            what = f"made with other heads than those of {model}; search it with the run that it was made with"
            raise ConfigError(Problem(where=str(index.folder), what=what))
        image_dim = int(index.making["image_dim"])
        vectors = ground(heads, sentences=vectors, images=np.zeros((1, image_dim), np.float32))[0]
    return unit(vectors)


def _encoder_of(index: IndexFolder, model: str, device: str, *, packed: bool) -> RowEncoder:
    """The encoder as the index says it was used; another model of the same size is refused."""
    made = index.making["model"]
    config = EncoderConfig(
        model=inside_run(model),
        pooling=made.get("pooling"),
        num_layers=made.get("num_layers"),
        prompt=made.get("prompt"),
        max_tokens=made.get("max_tokens") if "tower" not in made else None,
    )
    encoder = open_text_encoder(config, device=device, packed=packed)
    found = encoder.source["sha256"]
    if found != made["sha256"]:
        what = (
            f"made with {made.get('model')!r} (sha256 {made['sha256']:.12}…), not with {model!r} "
            f"(sha256 {found:.12}…); vectors of two models cannot be compared: name the one that it was made with"
        )
        raise ConfigError(Problem(where=str(index.folder), what=what))
    return encoder


def _encoded(encoder: RowEncoder, source: Source, options: EncodeOptions, *, start: int) -> Iterator[Rows]:
    def numbered() -> Iterator[Row]:
        for place, row in enumerate(source.rows()):
            yield row if source.id_column is not None else Row(str(start + place), row.text)

    with evaluation_mode(encoder):
        for part in parts(numbered(), size=options.part_rows):
            yield Rows(ids=part.ids, texts=part.texts, vectors=unit(encoder.encode(part.texts).vectors))


def _of_images(model: str, store: FeatureStore, out: Path, kind: Kind) -> IndexReport:
    """An index of a store of image vectors in the grounding space of a run."""
    heads = _heads_of(model)
    encoder = open_text_encoder(EncoderConfig(model=inside_run(model)), device="cpu", packed=False)
    no_sentence = np.zeros((1, encoder.dim), np.float32)

    def grounded(rows: np.ndarray) -> np.ndarray:
        return unit(ground(heads, sentences=no_sentence, images=store.read(rows))[1])

    def blocks() -> Iterator[Rows]:
        for start in range(0, len(store), _BLOCK):
            numbers = np.arange(start, min(start + _BLOCK, len(store)), dtype=np.int64)
            names = [store.ids[number] for number in numbers.tolist()]
            yield Rows(ids=names, texts=[""] * len(names), vectors=grounded(numbers))

    making = {"model": dict(encoder.source), "normalized": True, "head": _IMAGE_HEAD}
    making |= {"heads_sha256": file_sha256(heads), "image_dim": store.dim}
    dim = grounded(np.zeros(1, np.int64)).shape[1]
    write_index(out, blocks(), kind=kind, count=len(store), dim=dim, next_id=len(store) + 1, making=_stated(making))
    return _report(out)


def _heads_of(model: str) -> Path:
    heads = locate(model, Request()).heads
    if heads is None:
        what = "no heads.safetensors; an index of image vectors needs the heads of a run"
        raise ConfigError(Problem(where=model, what=what))
    return heads


def _is_store(path: str) -> bool:
    manifest = Path(path) / MANIFEST
    if not is_dir(Path(path)) or not is_file(manifest):
        return False
    try:
        return bool(parse_record(regular(manifest).read_bytes()).get("format") == STORE)
    except (OSError, ValueError, AttributeError):
        return False


def _listed(index: IndexFolder, path: Path) -> set[str]:
    wanted = dict.fromkeys(line for line in read_lines(path) if line)
    there = {index.ids[number] for number in range(len(index))}
    missing = [name for name in wanted if name not in there]
    if missing:
        what = f"no such id among the {len(index)} rows of {index.folder}; nothing was deleted"
        raise DataError(few(missing, lambda name: Problem(where=f"{path}: id {name!r:.80}", what=what)))
    return set(wanted)


def _stated(making: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in making.items() if key not in ("output", "part_rows", "truncate_dim")}


def _report(out: Path, *, deleted: int = 0) -> IndexReport:
    index = open_index(out)
    return IndexReport(
        out=out, rows=len(index), dim=index.dim, kind=index.kind, recall=index.recall, deleted=deleted
    )


def _hit(index: IndexFolder, number: int, score: float, rank: int) -> Hit:
    name, text = index.ids[number], index.texts[number]
    image = index.making["head"] == _IMAGE_HEAD or index.making["model"].get("tower") == "image"
    return Hit(
        rank=rank,
        score=score,
        kind="image" if image else "row",
        id=name,
        image=name if image else "",
        captions=(text,) if text else (),
    )
