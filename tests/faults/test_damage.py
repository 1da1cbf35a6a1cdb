"""R2: damage of any byte of a checkpoint is noticed, said, and gone round."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trainings import copy, outcome, record, rising_scores, snapshots, train

from dalr.errors import CorruptFileError
from dalr.training.resume import newest_point, read_point
from tiny import Toys

SETTINGS = ("training.max_steps=6", "validation.every=2", "training.save_every=2", "training.keep=2")

pytestmark = pytest.mark.usefixtures("prepared_once")


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "absent": lambda data: None,
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "first bit": lambda data: flipped(data, 0),
    "middle bit": lambda data: flipped(data, len(data) // 2),
    "last bit": lambda data: flipped(data, len(data) - 1),
}


def damages(run: Path, folder: str, other: str) -> Iterator[tuple[str, Path, bytes | None]]:
    """(what, file, its new content) for every file of `folder` and every damage that changes it."""
    for path in sorted(path for path in (run / folder).rglob("*") if path.is_file()):
        data = path.read_bytes()
        for what, change in DAMAGES.items():
            yield what, path, change(data)
        swapped = (run / other / path.relative_to(run / folder)).read_bytes()
        if swapped != data:
            yield "swapped", path, swapped


@pytest.fixture(scope="module")
def whole(
    toys: Toys, tmp_path_factory: pytest.TempPathFactory, prepared_once: None
) -> tuple[Path, Path, dict[str, str]]:
    """A recipe; its run as it was when step 4 had been sealed beside step 2; what it is worth in the end."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = toys.recipe(folder)
    with pytest.MonkeyPatch.context() as patched:
        rising_scores(patched)
        at = snapshots(patched, folder)
        train(recipe, folder / "run", *SETTINGS)
        return recipe, at(4), outcome(folder / "run")


def test_damage_of_any_file_is_noticed_and_an_older_checkpoint_taken(
    whole: tuple[Path, Path, dict[str, str]], tmp_path: Path
) -> None:
    _, at, _ = whole
    run = copy(at, tmp_path / "run")
    run_id = record(run)["id"]
    tried = 0
    for kind in ("resume", "checkpoints"):
        for what, path, data in damages(run, f"{kind}/step-000004", f"{kind}/step-000002"):
            before = path.read_bytes()
            path.unlink() if data is None else path.write_bytes(data)
            point, [error] = newest_point(run, run_id=run_id)
            assert point is not None, (what, path)
            assert point.step == 2, (what, path)
            assert f"{kind}/step-000004" in str(error)
            if path.name != "manifest.json":
                assert str(path) in str(error), "the file is named"
            path.write_bytes(before)
            tried += 1
    point, rejected = newest_point(run, run_id=run_id)
    assert (point is not None and point.step, rejected) == (4, [])
    assert tried > 80


@pytest.mark.parametrize("what", [*DAMAGES, "swapped"])
@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_a_run_goes_on_from_the_older_one_to_the_same_bits(
    whole: tuple[Path, Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    recipe, at, expected = whole
    rising_scores(monkeypatch)
    run = copy(at, tmp_path / "run")
    [(path, data)] = [
        (path, data)
        for damage, path, data in damages(run, "resume/step-000004", "resume/step-000002")
        if (path.name, damage) == (name, what)
    ]
    path.unlink() if data is None else path.write_bytes(data)
    said = train(recipe, run, *SETTINGS, resume=True)
    [line] = [line for line in said if "using" in line]
    assert line.endswith("; using step-000002")
    assert name in line or what == "swapped", "a manifest of another step tells of other files"
    assert outcome(run) == expected
    assert record(run)["resumed_at"][0]["step"] == 2


def test_the_line_on_a_rejected_checkpoint_says_what_was_expected_and_found(
    whole: tuple[Path, Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, at, expected = whole
    rising_scores(monkeypatch)
    run = copy(at, tmp_path / "run")
    for step in (4, 2):
        path = run / "resume" / f"step-{step:06d}" / "optimizer.safetensors"
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:1000])
    said = train(recipe, run, *SETTINGS, resume=True)
    for step in (4, 2):
        path = run / "resume" / f"step-{step:06d}" / "optimizer.safetensors"
        assert f"{path}: expected {size} bytes, found 1000; starting from step 0" in said
    assert outcome(run) == expected


def test_a_checkpoint_of_another_run_or_step_is_not_gone_on_from(
    whole: tuple[Path, Path, dict[str, str]], tmp_path: Path
) -> None:
    _, at, _ = whole
    run = copy(at, tmp_path / "run")
    run_id = record(run)["id"]
    with pytest.raises(CorruptFileError, match="sealed as step 4 of run"):
        read_point(run / "resume" / "step-000004", run=run, run_id="another")
    shutil.rmtree(run / "resume" / "step-000004")
    shutil.copytree(run / "resume" / "step-000002", run / "resume" / "step-000004")
    point, [error] = newest_point(run, run_id=run_id)
    assert "sealed as step 2" in str(error)
    assert point is not None
    assert point.folder.name == "step-000002"


def test_rejected_checkpoints_never_push_out_whole_ones(
    whole: tuple[Path, Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With step 4 damaged and keep 1, sealing step 3 must not leave step 4 alone."""
    recipe, at, _ = whole
    run = copy(at, tmp_path / "run")
    (run / "resume" / "step-000004" / "state.json").write_text("{}")
    taken = snapshots(monkeypatch, tmp_path)
    train(recipe, run, *SETTINGS, "training.save_every=3", "training.keep=1", resume=True)
    assert [path.name for path in sorted((taken(3) / "resume").iterdir())] == ["step-000003"]
