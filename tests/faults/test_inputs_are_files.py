"""Every input that is a pipe or a device is refused at once: the one waits for ever, the other never ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dalr.data.dataset import read_text
from dalr.data.formats import read_pairs_file
from dalr.data.formats.choice import FORMATS
from dalr.errors import DalrError, Problem
from dalr.evaluation.official import OfficialFile, State, check_file
from dalr.evaluation.overlap import training_sentences
from dalr.evaluation.results import read_results
from dalr.evaluation.runs import run_record
from dalr.evaluation.sts import load_scored_tsv
from dalr.features.decoding import ImageRefusedError, read_image
from dalr.features.importing import check_matrix, open_matrix, read_ids
from dalr.features.predecessors import import_folder
from dalr.features.store import open_store
from dalr.io.sealed import known_sha256, read_manifest
from dalr.models.heads import ground
from dalr.models.reference import find_model
from dalr.recipe.loading import load_recipe
from dalr.report.history import read_history
from dalr.report.sources import read_sources
from dalr.study import load_study


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """A reader that waits is a failure, not a suite that hangs."""

    def too_long(*_: object) -> None:
        raise AssertionError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def make(place: Path, kind: str) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
        return place
    try:
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("only root can make devices")
    return place


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a recipe": ("r.yaml", lambda path: load_recipe(str(path))),
    "a study": ("s.yaml", lambda path: load_study(str(path))),
    "ids": ("ids.txt", read_ids),
    "ids of JSON lines": ("ids.jsonl", read_ids),
    "a matrix": ("m.npy", open_matrix),
    "a matrix with ids": ("m.npy", lambda path: check_matrix(path, path)),
    "captions of HDF5": ("m.hdf5", lambda path: import_folder(path, path.parent / "out", captions=path, ids=None)),
    "vectors of JSON": ("m.json", lambda path: import_folder(path, path.parent / "out", captions=None, ids=None)),
    "scored pairs": ("dev.tsv", load_scored_tsv),
    "results": ("results.json", read_results),
    "results of a report": ("results.json", lambda path: read_sources([path])),
    "text for the overlap": ("text.txt", training_sentences),
    "pairs for the overlap": ("pairs.jsonl", training_sentences),
    "a checksum": ("file", known_sha256),
    "a record of a run": ("run.json", lambda path: run_record(path.parent)),
    "a history": ("run.json", lambda path: read_history(path.parent)),
    "a manifest": ("manifest.json", lambda path: read_manifest(path.parent, format="f", version=1, remedy="r")),
    "a store": ("manifest.json", lambda path: open_store(path.parent)),
    "a model": ("model.safetensors", lambda path: find_model(str(_with_config(path)))),
    "a module of a model": ("0_Transformer/model.safetensors", lambda path: find_model(str(_with_config(path)))),
    "heads": ("heads.safetensors", lambda path: ground(path, sentences=_NONE, images=_NONE)),
}
_NONE = np.zeros((1, 2), np.float32)


def _with_config(weights: Path) -> Path:
    folder = weights.parent.parent if weights.parent.name.startswith("0_") else weights.parent
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("reader", READERS)
def test_a_reader_refuses_it(reader: str, kind: str, tmp_path: Path) -> None:
    name, read = READERS[reader]
    with pytest.raises(DalrError) as caught:
        read(make(tmp_path / "inputs" / name, kind))
    assert f"found a {'named pipe' if kind == 'pipe' else 'device'}" in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("format", [None, *FORMATS])
def test_pairs_of_every_format_and_text_are_refused(format: str | None, kind: str, tmp_path: Path) -> None:
    ending = (FORMATS[format].endings[0] if format else ".tsv").replace("a folder", "")
    problems: list[Problem] = []
    path = make(tmp_path / f"pairs{ending}", kind)
    assert read_pairs_file(path, problems, format=format) == []
    assert problems
    read_text(path, problems, {})
    assert f"found a {'named pipe' if kind == 'pipe' else 'device'}" in str(problems[-1])


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_saved_data_set_with_one_is_refused(kind: str, tmp_path: Path) -> None:
    make(tmp_path / "saved" / "data.arrow", kind)
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    problems: list[Problem] = []
    read_pairs_file(tmp_path / "saved", problems)
    assert "expected a regular file" in str(problems[0])


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_images_and_official_files_are_refused_one_by_one(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ImageRefusedError, match="not a regular file"):
        read_image(make(tmp_path / "image.jpg", kind))
    official = OfficialFile(path="x", rows=1, bytes=1, sha256="", folded_sha256="")
    assert check_file(make(tmp_path / "sts.txt", kind), official).state is State.UNREADABLE


def test_a_process_substitution_says_what_to_do() -> None:
    line = f"{sys.executable} -m dalr report <(echo '{{}}')"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "found a named pipe; write its content to a file first" in done.stderr


def test_a_file_on_standard_input_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("name: x\n")
    line = f"{sys.executable} -m dalr check /dev/stdin < {tmp_path / 'r.yaml'}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "is required and not given" in done.stderr
