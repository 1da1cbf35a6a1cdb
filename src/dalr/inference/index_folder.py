"""An index on disk: a sealed folder of unit vectors, their ids and their texts, opened without reading them.

Vectors and texts are memory-mapped, so an index of millions of rows opens at once. The manifest names what the
vectors were made by; a change writes a new folder, which takes the old one's place in one rename. HNSW graphs
cannot delete, so an index of faiss is built anew from the vectors that stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64

from dalr.errors import ConfigError, CorruptFileError, DataError, Problem, few, install
from dalr.inference.nearest import nearest
from dalr.io.paths import regular
from dalr.io.sealed import read_manifest, verify_sealed, well_formed, write_sealed

FORMAT, VERSION = "dalr-index", 1
REMEDY = "make the index again with dalr index"
Kind = Literal["exact", "hnsw", "ivf"]
_VECTORS, _FAISS = "vectors.npy", "faiss.index"
_TRIED, _AT = 200, 10
"""Rows that recall is measured on, and how many neighbours of each."""
_LINKS, _BREADTH, _SEARCH = 32, 80, 96


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows on their way into an index."""

    ids: Sequence[str]
    texts: Sequence[str]
    vectors: Float32[np.ndarray, "n d"]
    """At length 1."""


class Strings:
    """Many strings in one file, found by their places."""

    def __init__(self, folder: Path, name: str) -> None:
        self._ends = _mapped(folder / f"{name}.npy")
        path = folder / f"{name}.bin"
        try:
            self._bytes = np.memmap(regular(path), np.uint8, "r") if len(self._ends) and self._ends[-1] else None
        except (OSError, ValueError) as error:
            raise CorruptFileError(f"{path}: cannot be read ({error!s:.120}); {REMEDY}") from None

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> str:
        start = int(self._ends[number - 1]) if number else 0
        stop = int(self._ends[number])
        return self._bytes[start:stop].tobytes().decode("utf-8") if self._bytes is not None else ""


class _StringWriter:
    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._file = open(folder / f"{name}.bin", "wb")  # noqa: SIM115 - closed by `close`
        self._ends: list[np.ndarray] = []
        self._end = 0

    def add(self, strings: Sequence[str]) -> None:
        encoded = [string.encode("utf-8") for string in strings]
        self._file.write(b"".join(encoded))
        ends = self._end + np.cumsum([len(each) for each in encoded], dtype=np.int64)
        self._end = int(ends[-1]) if len(ends) else self._end
        self._ends.append(ends)

    def close(self) -> None:
        self._file.close()
        np.save(self._folder / f"{self._name}.npy", np.concatenate([np.empty(0, np.int64), *self._ends]))


@dataclass(frozen=True, kw_only=True)
class IndexFolder:
    """An opened index."""

    folder: Path
    kind: Kind
    making: Mapping[str, Any]
    """What the vectors were made by."""
    next_id: int
    """The id of the next row without one; an id is never used a second time."""
    recall: float | None
    """Of faiss against exact search when it was built, at 10."""
    vectors: Float32[np.ndarray, "n d"]
    ids: Strings
    texts: Strings

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return int(self.vectors.shape[1])

    def search(
        self, queries: Float32[np.ndarray, "q d"], k: int
    ) -> tuple[Int64[np.ndarray, "q k"], Float32[np.ndarray, "q k"]]:
        """Row numbers and cosines of the `k` nearest rows of each query of length 1, best first.

        Raises:
            ConfigError: queries of another dimension, or faiss is needed and not installed.
        """
        if queries.shape[1] != self.dim:
            what = f"holds vectors of {self.dim} numbers, found a query of {queries.shape[1]}"
            raise ConfigError(Problem(where=str(self.folder), what=f"{what}; use the model it was made with"))
        if self.kind == "exact":
            return nearest(queries, self.vectors, k)
        scores, numbers = self._graph.search(queries, min(k, len(self)))
        return numbers.astype(np.int64), scores

    def blocks(self, keep: np.ndarray, size: int = 8_192) -> Iterator[Rows]:
        """The rows with these numbers, a block at a time."""
        for start in range(0, len(keep), size):
            some = keep[start : start + size]
            yield Rows(
                ids=[self.ids[number] for number in some.tolist()],
                texts=[self.texts[number] for number in some.tolist()],
                vectors=np.asarray(self.vectors[some]),
            )

    @cached_property
    def _graph(self) -> Any:
        faiss = require_faiss()
        manifest = read_manifest(self.folder, format=FORMAT, version=VERSION, remedy=REMEDY)
        verify_sealed(self.folder, manifest, remedy=REMEDY, only=_FAISS)
        graph = faiss.read_index(str(self.folder / _FAISS))
        _set_effort(graph, self.kind)
        return graph


def open_index(folder: Path) -> IndexFolder:
    """Open an index; vectors and texts are not read.

    Raises:
        CorruptFileError: not a finished index, or a file of another size than sealed.
    """
    manifest = read_manifest(folder, format=FORMAT, version=VERSION, remedy=REMEDY)
    stated = manifest.metadata
    with well_formed(folder, remedy=REMEDY):
        vectors = _mapped(folder / _VECTORS)
        ids, texts = Strings(folder, "ids"), Strings(folder, "texts")
        kind = stated["kind"]
        if kind not in ("exact", "hnsw", "ivf") or vectors.ndim != 2 or vectors.dtype != np.float32:
            raise ValueError(f"kind {kind!r}, vectors {vectors.dtype} {vectors.shape}")
        if not len(vectors) == len(ids) == len(texts) == int(stated["rows"]):
            raise ValueError(f"{len(vectors)} vectors, {len(ids)} ids, {len(texts)} texts")
        return IndexFolder(
            folder=folder,
            kind=kind,
            making=dict(stated["making"]),
            next_id=int(stated["next_id"]),
            recall=stated["recall"],
            vectors=vectors,
            ids=ids,
            texts=texts,
        )


def write_index(
    folder: Path, rows: Iterable[Rows], *, kind: Kind, count: int, dim: int, next_id: int, making: Mapping[str, Any]
) -> None:
    """Write a sealed index of `count` rows.

    Raises:
        DataError: ids that occur twice; nothing is left behind.
    """
    metadata: dict[str, Any] = {"making": dict(making), "kind": kind, "rows": count, "next_id": next_id}

    def fill(temporary: Path) -> None:
        ids, texts = _StringWriter(temporary, "ids"), _StringWriter(temporary, "texts")
        seen: set[str] = set()
        twice: list[str] = []
        with open(temporary / _VECTORS, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
            np.lib.format.write_array_header_1_0(file, header)
            for block in rows:
                twice += [name for name in block.ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
                ids.add(block.ids)
                texts.add(block.texts)
                file.write(np.ascontiguousarray(block.vectors, "<f4").tobytes())
        ids.close()
        texts.close()
        if twice:
            what = "occurs a second time; ids of an index are unique"
            raise DataError(few(twice, lambda name: Problem(where=f"id {name!r:.80}", what=what)))
        metadata["recall"] = _build_graph(temporary, kind) if kind != "exact" else None

    write_sealed(folder, format=FORMAT, version=VERSION, metadata=metadata, fill=fill)


def require_faiss() -> Any:
    """faiss, which HNSW and IVF need.

    Raises:
        ConfigError: not installed.
    """
    try:
        import faiss
    except ImportError:
        what = f"hnsw and ivf are faiss's, which is not installed; {install('search')}, or leave --kind out"
        raise ConfigError(Problem(where="--kind", what=what)) from None
    return faiss


def _build_graph(folder: Path, kind: Kind) -> float:
    """Write the index of faiss over the vectors in `folder`, and return its recall at 10 against exact search.

    With one thread: a graph that several threads build is another one every time.
    """
    faiss = require_faiss()
    vectors = _mapped(folder / _VECTORS)
    count, dim = vectors.shape
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        if kind == "hnsw":
            graph = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = _BREADTH
        else:
            lists = max(1, min(int(4 * count**0.5), count // 39))
            graph = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
            step = max(1, count // (64 * lists))
            graph.train(np.ascontiguousarray(vectors[::step]))
        for start in range(0, count, 65_536):
            graph.add(np.ascontiguousarray(vectors[start : start + 65_536]))
    finally:
        faiss.omp_set_num_threads(threads)
    faiss.write_index(graph, str(folder / _FAISS))
    _set_effort(graph, kind)
    tried = np.linspace(0, count - 1, min(_TRIED, count)).astype(np.int64)
    queries, k = np.ascontiguousarray(vectors[tried]), min(_AT, count)
    found, exact = graph.search(queries, k)[1], nearest(queries, vectors, k)[0]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), exact.tolist(), strict=True)]))


def _set_effort(graph: Any, kind: Kind) -> None:
    if kind == "hnsw":
        graph.hnsw.efSearch = _SEARCH
    else:
        graph.nprobe = max(8, graph.nlist // 32)


def _mapped(path: Path) -> np.ndarray:
    try:
        found: np.ndarray = np.load(regular(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CorruptFileError(f"{path}: not an .npy file ({error!s:.120}); {REMEDY}") from None
    return found
