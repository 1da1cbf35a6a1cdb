"""Image encoders of plug-ins: registered, tried, refused with what is wrong, and stores that say who made them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dalr
from dalr.errors import ConfigError, ModelFileError
from dalr.features.store import open_store
from dalr.models import image_encoder
from dalr.models.vision import has_text_tower, is_image_model, load_vision_model
from tiny import Outcome, write_pairs
from tiny_images import save_photos

SOURCE = '''
from pathlib import Path
import numpy as np
import dalr

@dalr.register_image_encoder("tiles")
class Tiles(dalr.ImageEncoder):
    """The mean colours of sixteen tiles."""

    version = "1"
    dim = 48
    height = width = 8

    def __init__(self, device):
        self.weights = [Path(__file__).with_name("scale.txt")]
        self.scale = np.float32(self.weights[0].read_text())

    @staticmethod
    def pixels(image):
        return np.asarray(image.resize((8, 8))).transpose(2, 0, 1).copy()

    def vectors(self, pixels):
        tiles = pixels.reshape(-1, 3, 4, 2, 4, 2).mean((3, 5), dtype=np.float32)
        return tiles.reshape(len(pixels), 48) * self.scale
'''


class Fine(dalr.ImageEncoder):
    """Each colour's mean."""

    version = "1"
    dim = 3
    height, width = 6, 4

    def __init__(self, device: torch.device) -> None: ...

    @staticmethod
    def pixels(image: Image.Image) -> np.ndarray:
        return np.asarray(image.resize((4, 6))).transpose(2, 0, 1)

    def vectors(self, pixels: np.ndarray) -> np.ndarray:
        return pixels.mean((2, 3), dtype=np.float32)


@pytest.fixture(autouse=True)
def no_encoders_left_behind() -> Iterator[None]:
    before = dict(image_encoder._registered)
    yield
    image_encoder._registered.clear()
    image_encoder._registered.update(before)
    for name in [name for name in sys.modules if name.startswith("dalr_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "scale.txt").write_text("0.5")
    path = tmp_path / "tiles.py"
    path.write_text(SOURCE)
    return path


def opened(**changed: Any) -> image_encoder.CheckedEncoder:
    """`Fine` with other attributes, registered and opened."""
    dalr.register_image_encoder("fine")(type("Changed", (Fine,), changed))
    return image_encoder.open_image_encoder("plugin:fine", torch.device("cpu"))


def refusal(**changed: Any) -> str:
    with pytest.raises(ModelFileError) as refused:
        opened(**changed)
    assert "'plugin:fine'" in str(refused.value)
    return str(refused.value)


class TestRegistering:
    def test_an_encoder_is_used_as_any_image_model(self) -> None:
        dalr.register_image_encoder("fine")(Fine)
        model = load_vision_model("plugin:fine", device="cpu")
        found = model.embed_images([Image.new("RGB", (30, 20), (255, 0, 51)), Image.new("RGB", (9, 9), "white")])
        assert found.tolist() == [[255, 0, 51], [255, 255, 255]]
        assert (model.dim, model.source["version"], model.source["normalized"]) == (3, "1", False)
        assert is_image_model("plugin:fine")
        assert not has_text_tower("plugin:fine")
        with pytest.raises(ModelFileError, match="no text tower"):
            model.embed_texts(["a dog"])

    def test_the_class_that_was_registered_last_counts(self) -> None:
        assert opened().source["version"] == "1"
        assert opened(version="2").source["version"] == "2"

    @pytest.mark.parametrize(
        ("name", "kind", "says"),
        [
            ("Fine", Fine, "expected lower-case letters, digits and _, found 'Fine'"),
            ("", Fine, "expected lower-case letters"),
            ("fine/1", Fine, "expected lower-case letters"),
            ("fine", object, "expected a subclass of dalr.ImageEncoder, found <class 'object'>"),
            ("fine", type("Half", (dalr.ImageEncoder,), {}), "Half lacks __init__, pixels, vectors"),
            ("fine", type("Bound", (Fine,), {"pixels": lambda self, image: None}), "make it a @staticmethod"),
        ],
    )
    def test_what_cannot_be_an_encoder_is_refused(self, name: str, kind: Any, says: str) -> None:
        with pytest.raises(ConfigError) as refused:
            dalr.register_image_encoder(name)(kind)
        assert says in str(refused.value)

    def test_an_unknown_name_lists_the_known_ones(self) -> None:
        with pytest.raises(ConfigError, match=r"'rough' is registered \(none is\); name the file .* --plugin FILE"):
            load_vision_model("plugin:rough", device="cpu")
        for name in ("fine", "coarse"):
            dalr.register_image_encoder(name)(Fine)
        with pytest.raises(ConfigError, match=r"\(registered: coarse, fine\)"):
            load_vision_model("plugin:rough", device="cpu")

    def test_a_revision_is_of_the_hub(self) -> None:
        dalr.register_image_encoder("fine")(Fine)
        with pytest.raises(ConfigError, match="--revision"):
            load_vision_model("plugin:fine", revision="main", device="cpu")

    def test_it_is_no_sentence_encoder(self, cli: Callable[..., Outcome], tmp_path: Path) -> None:
        dalr.register_image_encoder("fine")(Fine)
        (tmp_path / "a.txt").write_text("a dog\n")
        done = cli(
            "features", "text", "--text", tmp_path / "a.txt", "--model", "plugin:fine", "--out", tmp_path / "s"
        )
        assert (done.code, "which encodes no sentences" in done.err) == (4, True), done.err
        done = cli("encode", "plugin:fine", tmp_path / "a.txt", "--out", tmp_path / "v.npy")
        assert (done.code, "which encodes no sentences" in done.err) == (4, True), done.err

    def test_an_installed_package_offers_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "my_tiles.py").write_text(SOURCE.replace("@dalr.register_image_encoder(", "# ("))
        (tmp_path / "scale.txt").write_text("1")
        info = tmp_path / "my_tiles-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tiles\nVersion: 1\n")
        (info / "entry_points.txt").write_text(
            "[dalr.image_encoders]\ntiles = my_tiles:Tiles\nlost = my_tiles:Lost\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        assert load_vision_model("plugin:tiles", device="cpu").dim == 48
        with pytest.raises(ConfigError, match="lost = my_tiles:Lost: cannot be loaded"):
            load_vision_model("plugin:lost", device="cpu")


class TestWhatItReturns:
    def test_attributes_that_are_missing_or_wrong_are_named_together(self, tmp_path: Path) -> None:
        found = refusal(version=" ", dim=0, height=2.0, width=True, weights=[tmp_path / "lost.pth"])
        for says in (
            "version must be a text such as '1', found ' '",
            "dim must be a whole number above 0, found 0",
            "height must be a whole number above 0, found 2.0",
            "width must be a whole number above 0, found True",
            f"weights: no such file: {tmp_path / 'lost.pth'}",
        ):
            assert says in found
        assert "weights must be a list of Path, found 'a.pth'" in refusal(weights="a.pth")
        assert "dim must be a whole number above 0, found None" in refusal(dim=None)

    @pytest.mark.parametrize(
        ("result", "found"),
        [
            (np.zeros((3, 6, 4), np.float32), "float32 (3, 6, 4)"),
            (np.zeros((6, 4, 3), np.uint8), "uint8 (6, 4, 3)"),
            (torch.zeros(3, 6, 4, dtype=torch.uint8), "torch.Tensor"),
            (None, "NoneType"),
        ],
    )
    def test_pixels(self, result: object, found: str) -> None:
        says = f"pixels() must return a uint8 array (3, 6, 4), found {found}"
        assert says in refusal(pixels=staticmethod(lambda _: result))

    @pytest.mark.parametrize(
        ("made", "found"),
        [
            (lambda n: np.ones((n, 3)), "float64 (3, 3)"),
            (lambda n: np.ones((n, 4), np.float32), "float32 (3, 4)"),
            (lambda n: np.ones((n, 3, 1), np.float32), "float32 (3, 3, 1)"),
            (lambda n: np.ones((n - 1, 3), np.float32), "float32 (2, 3)"),
            (lambda n: torch.ones(n, 3), "torch.Tensor"),
            (lambda n: [[1.0] * 3] * n, "list"),
        ],
    )
    def test_vectors(self, made: Callable[[int], object], found: str) -> None:
        says = f"vectors() must return a float32 array (3, 3), found {found}"
        assert says in refusal(vectors=lambda _, pixels: made(len(pixels)))

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_vectors_that_are_not_finite(self, value: float) -> None:
        assert "not finite" in refusal(vectors=lambda _, pixels: np.full((len(pixels), 3), value, np.float32))

    def test_vectors_that_depend_on_the_batch(self) -> None:
        def vectors(_: object, pixels: np.ndarray) -> np.ndarray:
            return Fine.vectors(None, pixels) - pixels.mean(dtype=np.float32)  # type: ignore[arg-type]

        assert "must depend on its image alone" in refusal(vectors=vectors)
        drawn = np.random.default_rng(0)
        random = refusal(vectors=lambda _, pixels: drawn.random((len(pixels), 3), np.float32))
        assert "must depend on its image alone" in random

    def test_code_that_fails(self) -> None:
        def fails(*_: object) -> None:
            raise RuntimeError("no such layer\nand more")

        assert "cannot be made: RuntimeError: no such layer" in refusal(__init__=fails)
        assert "pixels() failed: RuntimeError: no such layer" in refusal(pixels=staticmethod(fails))
        assert "vectors() failed: RuntimeError: no such layer" in refusal(vectors=fails)

    def test_an_error_of_dalr_stays_what_it_is(self) -> None:
        def fails(*_: object) -> None:
            raise ConfigError("set TILES_HOME")

        with pytest.raises(ConfigError, match="set TILES_HOME"):
            opened(__init__=fails)

    def test_a_vector_that_is_not_finite_later_names_its_image(
        self, cli: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        def vectors(_: object, pixels: np.ndarray) -> np.ndarray:
            means: np.ndarray = pixels.mean((2, 3), dtype=np.float32)
            return np.where(means.min(1, keepdims=True) > 250, np.float32(np.nan), means)

        dalr.register_image_encoder("fine")(type("White", (Fine,), {"vectors": vectors}))
        (tmp_path / "images").mkdir()
        Image.new("RGB", (8, 8), "white").save(tmp_path / "images" / "white.png")
        pairs = write_pairs(tmp_path / "p.jsonl", ["white.png"], [["snow"]])
        done = cli(*command(pairs, tmp_path, "plugin:fine"))
        assert (done.code, "image 'white.png': its vector: value 1 is nan" in done.err) == (3, True), done.err
        with pytest.raises(ModelFileError, match="its vector of this image is not finite"):
            load_vision_model("plugin:fine", device="cpu").embed_images([Image.new("RGB", (8, 8), "white")])


def command(pairs: Path, folder: Path, model: str, *more: object, out: str = "s") -> list[object]:
    options = ["--pairs", pairs, "--images", folder / "images", "--model", model, "--out", folder / out]
    return ["features", "images", *options, "--workers", "0", "-q", *more]


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    return save_photos(tmp_path / "images", 9)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestStores:
    @pytest.fixture
    def make(
        self, cli: Callable[..., Outcome], tmp_path: Path, photos: list[str], plugin: Path
    ) -> Callable[..., Outcome]:
        def run(count: int, out: str, *more: object) -> Outcome:
            pairs = write_pairs(tmp_path / f"{count}.jsonl", photos[:count], [["a photo"]] * count)
            return cli(*command(pairs, tmp_path, "plugin:tiles", "--plugin", plugin, *more, out=out))

        return run

    def test_at_once_in_parts_and_updated_have_equal_bytes(
        self, make: Callable[..., Outcome], cli: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        assert make(9, "once").code == 0
        assert make(5, "updated").code == 0
        done = make(9, "updated", "--update")
        assert "5 kept, 4 computed" in done.out, done.err
        for part in ("1/2", "2/2"):
            assert make(9, "parts", "--part", part).code == 0
        assert cli("features", "merge", tmp_path / "parts", "-q").code == 0
        assert content(tmp_path / "once") == content(tmp_path / "updated") == content(tmp_path / "parts")

    def test_a_store_says_who_made_it(self, make: Callable[..., Outcome], tmp_path: Path) -> None:
        assert make(3, "s").code == 0
        source = open_store(tmp_path / "s").source
        assert (source["model"], source["version"], source["dim"]) == ("plugin:tiles", "1", 48)
        assert [name for name, _ in source["weights"]] == ["scale.txt"]

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ('version = "1"', 'version = "2"', "version '1', now asked for '2'"),
            ("* self.scale", "* self.scale[None]", ""),
            ("height = width = 8", "height = width = 16", "processor.height 8, now asked for 16"),
            ("0.5", "0.25", "weights [['scale.txt', '"),
            ("* self.scale", "* self.scale * np.float32([-1] + [1] * 47)", "gives other vectors now"),
        ],
        ids=["version", "same", "size", "weights", "unsaid"],
    )
    def test_another_encoder_is_not_mixed_in(
        self, make: Callable[..., Outcome], plugin: Path, tmp_path: Path, old: str, new: str, says: str
    ) -> None:
        assert make(5, "s").code == 0
        kept = content(tmp_path / "s")
        for path in (plugin, plugin.with_name("scale.txt")):
            path.write_text(
                path.read_text().replace(old, new).replace("(8, 8)", "(16, 16)" if "16" in new else "(8, 8)")
            )
        if "16" in new:
            plugin.write_text(plugin.read_text().replace("4, 2, 4, 2", "4, 4, 4, 4"))
        del sys.modules["dalr_plugin_tiles"]
        image_encoder._registered.clear()
        done = make(9, "s", "--update")
        assert (done.code, says in done.err) == (2 if says else 0, True), done.err
        assert not says or {name: content(tmp_path / "s")[name] for name in kept} == kept

    def test_decoding_processes_read_as_the_plug_in_does(
        self, make: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        assert make(9, "here").code == make(9, "there", "--workers", "2").code == 0
        assert content(tmp_path / "here") == content(tmp_path / "there")

    def test_a_process_that_inherits_nothing_loads_the_file(
        self, make: Callable[..., Outcome], tmp_path: Path
    ) -> None:
        assert make(3, "s").code == 0
        reader = load_vision_model("plugin:tiles", device="cpu").pixels
        rebuild, arguments = reader.__reduce__()  # type: ignore[misc]
        assert arguments[0] == str(tmp_path / "tiles.py")
        code = (
            "import json, sys\nfrom PIL import Image\nfrom dalr.models import image_encoder\n"
            "reader = getattr(image_encoder, sys.argv[1])(*json.loads(sys.argv[2]))\n"
            "print(reader(Image.new('RGB', (9, 5), (7, 8, 9)))[:, 0, 0].tolist())"
        )
        call = [sys.executable, "-c", code, rebuild.__name__, json.dumps(arguments)]
        assert subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip() == "[7, 8, 9]"

    def test_a_folder_of_images_is_encoded(
        self, cli: Callable[..., Outcome], photos: list[str], plugin: Path, tmp_path: Path
    ) -> None:
        done = cli("encode", "plugin:tiles", tmp_path / "images", "--out", tmp_path / "v", "--plugin", plugin)
        assert done.code == 0, done.err
        assert (len(open_store(tmp_path / "v")), open_store(tmp_path / "v").dim) == (9, 48)
