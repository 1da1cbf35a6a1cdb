"""R34: names from data never become paths. What is opened is watched, not only what is said."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dalr.api import default_run_folder
from dalr.errors import ConfigError, DataError, ModelFileError
from dalr.features.images import write_image_store
from dalr.features.store import open_store, write_store
from dalr.models.vision import VisionModel, load_vision_model
from tiny import Outcome, Toys, write_pairs
from tiny_images import photo, save_tiny_image_model

OUTSIDE: tuple[str, ...] = (
    "../secret.jpg",
    "../../secret.jpg",
    "../images-evil/secret.jpg",
    "inner/../../secret.jpg",
    "link.jpg",
    "linked/secret.jpg",
    "linked/../secret.jpg",
    "hop.jpg",
    "{root}/../secret.jpg",
    "{root}-evil/secret.jpg",
    "/etc/passwd",
    "/proc/self/environ",
)
"""Names that lead out of the image folder, or would if they were joined carelessly."""
NO_FILE: tuple[str, ...] = (
    "C:\\x.jpg",
    "..\\secret.jpg",
    "~/secret.jpg",
    "$HOME/secret.jpg",
    "file:///etc/passwd",
    "http://localhost/x.jpg",
    "a.jpg\0.png",
    "x" * 300,
    "x/" * 3000,
    ".",
    "",
    "CON",
    "a.jpg/../../secret.jpg",
)
"""Names of nothing that is a picture below it."""

_watched: list[str] | None = None


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watched is not None and event == "open" and isinstance(arguments[0], str | bytes):
        _watched.append(os.fsdecode(arguments[0]))


sys.addaudithook(_hook)


@pytest.fixture
def opened() -> Iterator[Callable[[], list[Path]]]:
    """Every file that this process has opened since, as real paths."""
    global _watched
    _watched = []
    try:
        yield lambda: [Path(os.path.realpath(name)) for name in (_watched or []) if "\0" not in name]
    finally:
        _watched = None


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> VisionModel:
    return load_vision_model(str(save_tiny_image_model(tmp_path_factory.mktemp("models") / "clip", "clip")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image folder with a good picture, links out of it, and a neighbour whose name begins as its own does."""
    place = tmp_path / "images"
    for folder in ("images", "images/inner", "images-evil", "outside"):
        (tmp_path / folder).mkdir()
    for number, name in enumerate(
        ("images/a.jpg", "images-evil/secret.jpg", "outside/secret.jpg", "secret.jpg", "images/inner/b.jpg")
    ):
        photo(number, (40, 40)).save(tmp_path / name)
    (place / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (place / "linked").symlink_to(tmp_path / "outside")
    (place / "hop.jpg").symlink_to(place / "inner" / "hop.jpg")
    (place / "inner" / "hop.jpg").symlink_to("../../secret.jpg")
    return place


def hostile_names(root: Path) -> list[str]:
    return [name.format(root=root) if "{" in name else name for name in (*OUTSIDE, *NO_FILE)]


def test_no_name_opens_a_file_outside_of_the_image_folder(
    tmp_path: Path, root: Path, clip: VisionModel, opened: Callable[[], list[Path]]
) -> None:
    names = hostile_names(root)
    secrets = {path.resolve() for path in tmp_path.rglob("secret.jpg")} | {Path("/etc/passwd")}
    with pytest.raises(DataError, match=f"{len(names)} of {len(names) + 1} images cannot be used"):
        write_image_store(tmp_path / "store", ids=["a.jpg", *names], root=root, model=clip, workers=0)
    seen = opened()
    assert root / "a.jpg" in seen, "the watch works"
    assert not secrets & set(seen)
    listed = [json.loads(line) for line in (tmp_path / "store" / "bad_images.jsonl").read_text().splitlines()]
    reasons = {str(each["image"]): str(each["reason"]) for each in listed}
    assert list(reasons) == names, "each is named as it was given"
    for name in hostile_names(root)[: len(OUTSIDE)]:
        assert "outside the image folder" in reasons[name], name


def test_a_linked_image_folder_is_the_folder_that_it_means(tmp_path: Path, root: Path, clip: VisionModel) -> None:
    (tmp_path / "alias").symlink_to(root)
    write_image_store(tmp_path / "store", ids=["a.jpg", "inner/b.jpg"], root=tmp_path / "alias", model=clip)
    assert open_store(tmp_path / "store").ids == ("a.jpg", "inner/b.jpg")


def test_a_pairs_file_through_the_command_line(
    tmp_path: Path, root: Path, clip: VisionModel, cli: Callable[..., Outcome], opened: Callable[[], list[Path]]
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", ["a.jpg", "../images-evil/secret.jpg"], [["a dog"], ["a cat"]])
    options = ("--pairs", pairs, "--images", root, "--out")
    started = cli("init", *options, tmp_path / "recipe.yaml")
    assert started.code == 0, started.err
    assert "1 images are not in" in started.err
    done = cli("features", "images", *options, tmp_path / "store", "--model", clip.reference, "--workers", 0, "-q")
    assert done.code == 3
    assert "../images-evil/secret.jpg" in done.err
    assert root.parent / "images-evil" / "secret.jpg" not in opened()


def test_ids_are_data_in_a_store_and_make_no_files(tmp_path: Path, root: Path) -> None:
    names = hostile_names(root)
    write_store(tmp_path / "s", ids=names, blocks=[np.ones((len(names), 4))], source={}, origin="x")
    assert open_store(tmp_path / "s").ids == tuple(names)
    assert sorted(path.name for path in (tmp_path / "s").rglob("*")) == [
        "ids.jsonl",
        "manifest.json",
        "vectors-00000.safetensors",
    ]


@pytest.mark.parametrize(
    "name", ["../x", "/tmp/x", "a/b", "..", ".", ".hidden", "", "a\\b", "C:\\x", "a\0b", "a\nb", "é" * 150]
)
def test_the_name_of_a_recipe_leads_nowhere(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a folder in runs/; say --out"):
        default_run_folder(name)


@pytest.mark.parametrize("name", ["dalr", "DALR (µ = 0.2)", "a..b", "模型", "x" * 200])
def test_other_names_of_recipes_are_folders(name: str) -> None:
    folder = default_run_folder(name)
    assert folder.parent == Path("runs")
    assert folder.name.startswith(f"{name}-")


def test_a_recipe_with_such_a_name_is_refused_before_it_trains(
    toys: Toys, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = cli("train", toys.recipe(tmp_path, name="../../escaped"))
    assert done.code == 2
    assert "say --out" in done.err
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize("name", ["../other", "/", "a/../../other", "a\0b", "x" * 300, "linked"])
def test_modules_of_a_model_lie_inside_of_it(tmp_path: Path, tiny_teacher: Path, name: str) -> None:
    import shutil

    from dalr.models.config import EncoderConfig
    from dalr.models.loading import load_encoder

    shutil.copytree(tiny_teacher, tmp_path / "model")
    shutil.copytree(tiny_teacher / "1_Pooling", tmp_path / "other")
    (tmp_path / "model" / "linked").symlink_to(tmp_path / "other")
    modules = json.loads((tmp_path / "model" / "modules.json").read_text())
    modules[1]["path"] = name
    (tmp_path / "model" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ModelFileError, match=str(tmp_path / "model")):
        load_encoder(EncoderConfig(model=str(tmp_path / "model")))
