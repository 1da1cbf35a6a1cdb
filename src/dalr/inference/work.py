"""Unfinished vectors: one file per part in `OUT.parts`, each complete from the moment it has its name.

Which rows form a part depends on the input alone, and a part's vectors depend on its rows alone. So a resumed run,
or n machines that each take every n-th part, give the bytes of one uninterrupted run. A part states the content key
of its rows and of its vectors: a changed input or a damaged file is computed again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from dalr.errors import ConfigError, CorruptFileError, Problem
from dalr.inference.precision import Ranges
from dalr.inference.rows import Part
from dalr.io.atomic import hidden_names, storage_errors, write_json, write_with
from dalr.io.paths import entries, exists, is_dir, is_file, regular
from dalr.io.records import parse_record
from dalr.io.share import Share

_MAKING, _RANGES = "making.json", "ranges.json"
_ADVICE = "the part is computed again with --resume"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A part that is done."""

    ids: tuple[str, ...]
    vectors: Shaped[np.ndarray, "n d"]
    input_sha256: str
    cut: int
    blank: int
    texts: tuple[str, ...] = ()
    """The rows themselves, where they are kept too."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """The folder of unfinished vectors beside an output."""

    out: Path
    with_texts: bool = False
    """Keep the rows themselves, too."""

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.parts")

    def begin(self, making: Mapping[str, Any], share: Share, *, resume: bool) -> None:
        """Make the folder, or go on in the one that is there.

        Raises:
            ConfigError: it was begun otherwise, or `resume` is not said.
        """
        wanted = json.loads(json.dumps(dict(making)))
        if exists(self.folder):
            started = self._record(_MAKING)
            if started is not None and started != wanted:
                raise ConfigError(_differences(self.folder, started, wanted))
            own = any(share.has(number) for number in self.numbers())
            if (own or share.of == 1) and not resume:
                self.require_none()
        with storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / _MAKING, wanted)

    def require_none(self) -> None:
        """Refuse to begin where parts of an earlier run wait.

        Raises:
            ConfigError: saying how it is continued.
        """
        if exists(self.folder) and self.numbers():
            what = f"unfinished work of an earlier run; continue with --resume, or delete {self.folder}"
            raise ConfigError(Problem(where=f"--out {self.out}", what=what))

    def making(self) -> dict[str, Any]:
        """How the parts there are made.

        Raises:
            ConfigError: there are none.
        """
        found = self._record(_MAKING) if exists(self.folder) else None
        if not isinstance(found, dict):
            what = f"no parts to merge in {self.folder}; make them with dalr encode --part i/n"
            raise ConfigError(Problem(where=f"--out {self.out}", what=what))
        return found

    def numbers(self) -> list[int]:
        """The parts that are there, rising."""
        return sorted(
            int(path.stem) for path in entries(self.folder) if path.suffix == ".part" and path.stem.isdigit()
        )

    def ranges(self) -> Ranges | None:
        found = self._record(_RANGES)
        if found is None:
            return None
        try:
            return Ranges.from_json(found)
        except (ValueError, KeyError, TypeError) as error:
            what = f"{self.folder / _RANGES}: not the ranges of int8 vectors ({error}); delete {self.folder}"
            raise CorruptFileError(what) from None

    def keep_ranges(self, ranges: Ranges) -> None:
        write_json(self.folder / _RANGES, ranges.as_json())

    def keep(self, part: Part, vectors: Shaped[np.ndarray, "n d"], *, cut: int, blank: int) -> None:
        """Seal a part under its number."""
        from safetensors.numpy import save_file

        texts = part.texts if self.with_texts else ()
        ids = np.frombuffer(json.dumps([part.ids, texts], ensure_ascii=False).encode("utf-8"), np.uint8)
        stated = {"input": part.sha256, "content": _content(vectors, ids), "cut": str(cut), "blank": str(blank)}
        tensors = {"vectors": np.ascontiguousarray(vectors), "ids": ids}
        write_with(self._path(part.number), lambda path: save_file(tensors, path, metadata=stated))

    def kept(self, number: int) -> Kept | None:
        """A part that is done and undamaged; None otherwise."""
        from safetensors import SafetensorError, safe_open

        path = self._path(number)
        if not is_file(path):
            return None
        try:
            with safe_open(regular(path), framework="numpy") as file:
                stated = file.metadata()
                vectors, ids = file.get_tensor("vectors"), file.get_tensor("ids")
            if stated["content"] != _content(vectors, ids):
                return None
            names, texts = json.loads(ids.tobytes())
            return Kept(
                ids=tuple(names),
                texts=tuple(texts),
                vectors=vectors,
                input_sha256=stated["input"],
                cut=int(stated["cut"]),
                blank=int(stated["blank"]),
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def discard(self, number: int) -> None:
        with storage_errors(self.folder):
            self._path(number).unlink(missing_ok=True)

    def finish(self, share: Share, parts: int) -> None:
        """State that a share is done, and how many parts the whole input has."""
        if share.of == 1:
            self.forget_shares()
        write_json(self.folder / f"{share.name}.json", {"parts": parts})

    def forget_shares(self, keep: int = 1) -> None:
        """Of shares that were begun before, only the parts are used; `keep` is the count of those of this run."""
        for path in entries(self.folder):
            if (share := _share_of(path.name)) is not None and share.of != keep:
                with storage_errors(path):
                    path.unlink(missing_ok=True)

    def complete(self) -> int:
        """How many parts there are, all shares being done.

        Raises:
            ConfigError: shares that are missing, or that saw inputs of different lengths.
        """
        found: dict[int, set[int]] = {}
        counts: set[int] = set()
        for path in entries(self.folder):
            share = _share_of(path.name)
            record = self._record(path.name) if share is not None else None
            if share is not None and isinstance(record, dict):
                found.setdefault(share.of, set()).add(share.number)
                counts.add(int(record["parts"]))
        finished = [of for of, numbers in found.items() if len(numbers) == of]
        if not finished:
            of = max(found, default=1)
            missing = sorted(set(range(of)) - found.get(of, set()))
            named = ", ".join(f"{number + 1}/{of}" for number in missing[:10])
            what = f"not all parts are done: --part {named} is missing; run it with --resume"
            raise ConfigError(Problem(where=str(self.folder), what=what))
        if len(counts) != 1:
            what = f"the parts saw inputs of different lengths ({', '.join(map(str, sorted(counts)))} parts)"
            raise ConfigError(Problem(where=str(self.folder), what=f"{what}; run them on the same input"))
        return counts.pop()

    def all(self, count: int) -> Iterator[Kept]:
        """Every part, in order.

        Raises:
            CorruptFileError: one is missing or damaged.
        """
        for number in range(count):
            kept = self.kept(number)
            if kept is None:
                raise CorruptFileError(f"{self._path(number)}: missing or damaged; {_ADVICE}")
            yield kept

    def remove(self) -> None:
        with storage_errors(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Delete what a killed process left half-written; only where nobody else is at work."""
        unfinished = hidden_names()
        if not is_dir(self.folder):
            return
        for path in entries(self.folder):
            if unfinished.match(path.name):
                with storage_errors(path):
                    path.unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.part"

    def _record(self, name: str) -> Any:
        path = self.folder / name
        if not is_file(path):
            return None
        try:
            return parse_record(regular(path).read_bytes())
        except (OSError, ValueError) as error:
            raise CorruptFileError(f"{path}: cannot be read ({error!s:.120}); delete {self.folder}") from None


def _content(vectors: np.ndarray, ids: np.ndarray) -> str:
    digest = hashlib.sha256(f"{vectors.dtype} {vectors.shape}".encode())
    digest.update(np.ascontiguousarray(vectors).data)
    digest.update(ids.tobytes())
    return digest.hexdigest()


def _share_of(name: str) -> Share | None:
    words = name.removesuffix(".json").split("-")
    if not name.endswith(".json") or len(words) != 4 or (words[0], words[2]) != ("part", "of"):
        return None
    return Share(number=int(words[1]) - 1, of=int(words[3])) if words[1].isdigit() and words[3].isdigit() else None


def _differences(folder: Path, started: Any, wanted: Mapping[str, Any]) -> list[Problem]:
    old: Mapping[str, Any] = started if isinstance(started, dict) else {}
    problems = [
        Problem(
            where=str(folder),
            what=f"begun with {key} {old.get(key)!r:.200}, now asked for {wanted.get(key)!r:.200}",
        )
        for key in dict.fromkeys([*old, *wanted])
        if old.get(key) != wanted.get(key)
    ]
    advice = f"nothing was overwritten: choose another --out, or delete {folder}"
    return [*problems, Problem(where=str(folder), what=advice)]
