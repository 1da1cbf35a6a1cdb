"""A damaged model is never opened: every file, every kind of damage, every way to a model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from trainings import train

from dalr.errors import CorruptFileError
from dalr.io.sealed import MANIFEST
from dalr.models.heads import ground
from dalr.models.reference import find_model, inside_run
from dalr.models.verification import unverified, verify_heads
from senteval import write_senteval
from tiny import Outcome, Toys

Cli = Callable[..., Outcome]
Damage = Callable[[Path, Path], None]


def flip(place: Callable[[int], int], bit: int) -> Damage:
    def damage(path: Path, _: Path) -> None:
        data = bytearray(path.read_bytes())
        data[place(len(data))] ^= 1 << bit
        path.write_bytes(data)

    return damage


DAMAGES: dict[str, Damage] = {
    "absent": lambda path, _: path.unlink(),
    "empty": lambda path, _: path.write_bytes(b"") and None,
    "half": lambda path, _: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]) and None,
    "first bit flipped": flip(lambda _: 0, 7),
    "middle bit flipped": flip(lambda size: size // 2, 0),
    "last bit flipped": flip(lambda size: size - 1, 0),
    "of another step": lambda path, other: path.write_bytes(other.read_bytes()) and None,
}


@pytest.fixture(scope="module")
def runs(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two finished runs, whose checkpoints are of different steps."""
    folder = tmp_path_factory.mktemp("damaged")
    for steps in (2, 3):
        recipe = toys.method(folder, "mcse")
        settings = (f"training.max_steps={steps}", "training.batch_size=16", "validation.every=100")
        train(recipe, folder / f"run-{steps}", *settings)
    return folder / "run-2", folder / "run-3"


@pytest.fixture
def fresh(runs: tuple[Path, Path], tmp_path: Path) -> Path:
    shutil.copytree(runs[0], tmp_path / "run")
    return tmp_path / "run"


def checkpoint(run: Path) -> Path:
    [found] = (run / "checkpoints").iterdir()
    return found


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def damaged(folder: Path, other: Path) -> Iterator[tuple[str, Path]]:
    """Every file of `folder` in every damaged state, one at a time; put right again after each."""
    for name in files(folder):
        path = folder / name
        whole = path.read_bytes()
        for kind, damage in DAMAGES.items():
            damage(path, other / name)
            if not path.is_file() or path.read_bytes() != whole:  # some files are alike in all steps
                yield f"{name}: {kind}", path
            path.write_bytes(whole)


def refusal(open_it: Callable[[], object]) -> str:
    with pytest.raises(CorruptFileError) as refused:
        open_it()
    assert refused.value.exit_code == 4
    return str(refused.value)


def says(message: str, path: Path) -> bool:
    """The file, what was expected, and what was found; a manifest may name its folder."""
    named = str(path) in message or (path.name == MANIFEST and str(path.parent) in message)
    return named and ("expected" in message or "not a manifest" in message or f"no {MANIFEST}" in message)


def test_every_damage_to_a_checkpoint_is_found(runs: tuple[Path, Path], fresh: Path) -> None:
    folder = checkpoint(fresh)
    tried = 0
    for what, path in damaged(folder, checkpoint(runs[1])):
        for reference in (folder, folder / "model"):
            message = refusal(lambda reference=reference: find_model(inside_run(str(reference))))
            assert says(message, path), f"{what}: {message}"
        tried += 1
    assert tried >= 6 * len(files(folder))
    find_model(inside_run(str(folder)))


def test_every_damage_to_a_product_is_found(runs: tuple[Path, Path], fresh: Path) -> None:
    for what, path in damaged(fresh / "model", runs[1] / "model"):
        for reference in (fresh, fresh / "model"):
            message = refusal(lambda reference=reference: find_model(inside_run(str(reference))))
            assert says(message, path), f"{what}: {message}"
    find_model(inside_run(str(fresh)))


def test_a_product_copied_elsewhere_is_still_known(runs: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(runs[0] / "model", tmp_path / "mine")
    for what, path in damaged(tmp_path / "mine", runs[1] / "model"):
        if path.name == MANIFEST and not path.is_file():
            continue  # then nothing is known of it
        assert says(refusal(lambda: find_model(str(tmp_path / "mine"))), path), what


def test_every_damage_to_heads_is_found(runs: tuple[Path, Path], fresh: Path) -> None:
    whole = (fresh / "heads.safetensors").read_bytes()
    for folder, other in ((fresh, runs[1]), (checkpoint(fresh), checkpoint(runs[1]))):
        path = folder / "heads.safetensors"
        for kind, damage in DAMAGES.items():
            damage(path, other / path.name)
            assert says(refusal(lambda path=path: verify_heads(path)), path), kind
            path.write_bytes(whole)
        verify_heads(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    import numpy as np

    with pytest.raises(CorruptFileError):
        ground(path, sentences=np.zeros((1, 32), np.float32), images=np.zeros((1, 16), np.float32))


def test_the_model_of_another_run_in_its_place_is_found(runs: tuple[Path, Path], fresh: Path) -> None:
    shutil.rmtree(fresh / "model")
    shutil.copytree(runs[1] / "model", fresh / "model")
    assert "expected sha256" in refusal(lambda: find_model(inside_run(str(fresh))))


@pytest.mark.parametrize("where", ["run", "run/model", "checkpoint"])
def test_every_way_to_a_model_refuses_it(cli: Cli, toys: Toys, fresh: Path, tmp_path: Path, where: str) -> None:
    named = {"run": fresh, "run/model": fresh / "model", "checkpoint": checkpoint(fresh)}[where]
    inside = named if where == "run/model" else named / "model"
    weights = inside / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    recipe, benchmark = toys.recipe(tmp_path), write_senteval(tmp_path / "senteval")
    teacher = f'teachers=[{{"model": "{inside}"}}]'
    ways = {
        "evaluate": ("evaluate", named, "--data", benchmark, "--tasks", "sts-b-dev"),
        "features text": ("features", "text", "--model", named, "--text", toys.data.text, "--out", tmp_path / "s"),
        "student": ("check", recipe, "-s", f"student.model={inside}"),
        "student of a training": ("train", recipe, "-s", f"student.model={inside}", "--out", tmp_path / "new"),
        "teacher": ("check", toys.method(tmp_path, "rankcse"), "-s", teacher),
    }
    for way, arguments in ways.items():
        outcome = cli(*arguments)
        assert outcome.code == 4, (way, outcome.err)
        assert str(weights) in outcome.err, way
        assert "expected" in outcome.err, way
        assert "found" in outcome.err, way


def test_further_files_are_allowed(fresh: Path) -> None:
    (fresh / "model" / "README.md").write_text("mine")
    (checkpoint(fresh) / "notes.txt").write_text("mine")
    assert find_model(inside_run(str(fresh)))
    assert find_model(inside_run(str(checkpoint(fresh))))


def test_a_run_without_checksums_opens_with_a_note(cli: Cli, fresh: Path, tmp_path: Path) -> None:
    (fresh / "model" / MANIFEST).unlink()
    record = json.loads((fresh / "run.json").read_bytes())
    del record["sha256"]
    (fresh / "run.json").write_text(json.dumps(record))
    benchmark = write_senteval(tmp_path / "senteval")
    outcome = cli("evaluate", fresh, "--data", benchmark, "--tasks", "sts-b-dev", "--map", "none")
    assert f"note: {fresh}/model was written without checksums" in outcome.err
    verify_heads(fresh / "heads.safetensors")


def test_models_that_others_made_open_without_a_note(toys: Toys, tmp_path: Path) -> None:
    for content in ('{"name": "an app", "icons": []}', "[]"):
        shutil.copytree(toys.student, tmp_path / "model", dirs_exist_ok=True)
        (tmp_path / "model" / MANIFEST).write_text(content)
        assert find_model(str(tmp_path / "model")) == tmp_path / "model"
        assert unverified(tmp_path / "model") is None


def test_the_library_loads_the_product_and_saves_it_as_one_of_its_own(fresh: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(fresh / "model"), device="cpu")
    model.save(str(tmp_path / "saved"), create_model_card=False)
    assert not (tmp_path / "saved" / MANIFEST).exists()
    assert find_model(str(tmp_path / "saved"))
    model.save(str(fresh / "model"))  # over the product: it is another one now, and the message says what to do
    config = fresh / "model" / "config.json"
    config.write_text(config.read_text() + "\n")
    assert "if you changed the model yourself" in refusal(lambda: find_model(str(fresh / "model")))
