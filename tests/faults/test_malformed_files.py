"""R33: malformed safetensors, JSON and YAML end in an error of ours, within two seconds and 500 MB."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bounds import bounded
from dalr.errors import ConfigError, DalrError
from dalr.evaluation.results import read_results
from dalr.evaluation.runs import recipe_of_run
from dalr.features.importing import read_ids
from dalr.features.store import open_store, write_store
from dalr.io.sealed import MANIFEST, read_manifest, write_sealed
from dalr.models.config import StudentConfig
from dalr.models.heads import ground
from dalr.models.importing.checkpoint import import_checkpoint
from dalr.models.loading import ends_in_normalize, load_encoder
from dalr.models.reference import peek_config
from dalr.models.vision import load_vision_model
from dalr.recipe.loading import load_recipe
from dalr.report.history import read_history
from dalr.training.checkpoint import read_checkpoint
from published_checkpoints import simcse
from tiny_images import save_tiny_image_model


def safetensors(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


DEEP = b'{"a":' * 100_000
MALFORMED: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\1\0\0\0\0\0\0",
    "a length without a header": struct.pack("<Q", 64),
    "a length beyond the file": safetensors({}, length=1_000),
    "a length beyond any header": safetensors({}, length=2**63),
    "the largest length": safetensors({}, length=2**64 - 1),
    "no UTF-8": safetensors(b"\xff\xfe\xff\xfe"),
    "no JSON": safetensors(b"{x}"),
    "no object": safetensors(b"[]"),
    "no brace first": safetensors(b" {}"),
    "an empty header": safetensors(b""),
    "nested without end": safetensors(DEEP),
    "an unknown type": safetensors({"x": tensor([1], 0, 4, "PICKLE")}, bytes(4)),
    "a shape that does not fit": safetensors({"x": tensor([2], 0, 4)}, bytes(4)),
    "a shape that overflows": safetensors({"x": tensor([2**40, 2**40], 0, 4)}, bytes(4)),
    "a size that overflows": safetensors({"x": tensor([2**63], 0, 4)}, bytes(4)),
    "a negative shape": safetensors({"x": tensor([-1], 0, 4)}, bytes(4)),
    "offsets the wrong way round": safetensors({"x": tensor([1], 4, 0)}, bytes(4)),
    "offsets beyond the data": safetensors({"x": tensor([1], 0, 4)}),
    "a hole": safetensors({"x": tensor([1], 0, 4), "y": tensor([1], 8, 12)}, bytes(12)),
    "an overlap": safetensors({"x": tensor([1], 0, 4), "y": tensor([1], 2, 6)}, bytes(6)),
    "bytes left over": safetensors({"x": tensor([1], 0, 4)}, bytes(400)),
    "a name twice": safetensors(b'{"x": %b, "x": %b}' % ((json.dumps(tensor([1], 0, 4)).encode(),) * 2), bytes(4)),
    "metadata of numbers": safetensors({"__metadata__": {"a": 1}, "x": tensor([1], 0, 4)}, bytes(4)),
    "a tensor too few": safetensors({"x": tensor([1], 0, 4)}, bytes(4)),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_image_model(tmp_path_factory.mktemp("models") / "clip", "clip")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simcse(tmp_path_factory.mktemp("models") / "simcse").folder


@pytest.fixture
def places(tmp_path: Path, tiny_bert: Path, tiny_teacher: Path, clip: Path, checkpoint: Path) -> Path:
    """A folder of everything that is read, to damage."""
    for name, source in (("bert", tiny_bert), ("teacher", tiny_teacher), ("clip", clip), ("published", checkpoint)):
        shutil.copytree(source, tmp_path / name)
    write_store(tmp_path / "store", ids=["a", "b"], blocks=[np.ones((2, 4))], source={}, origin="x")
    return tmp_path


def encoder(folder: Path) -> object:
    return load_encoder(StudentConfig(model=str(folder), pooling="cls", dropout=0.2))


def head_of(folder: Path) -> object:
    return ground(
        folder / "heads.safetensors", sentences=np.ones((1, 4), np.float32), images=np.ones((1, 4), np.float32)
    )


def sealed_again(folder: Path) -> object:
    """A store whose shard was exchanged and sealed as if that were right."""
    content = (folder / "vectors-00000.safetensors").read_bytes()
    metadata = {"dim": 4, "rows": 2, "shard_rows": 16_384, "source": {}}

    def fill(temporary: Path) -> None:
        (temporary / "vectors-00000.safetensors").write_bytes(content)
        (temporary / "ids.jsonl").write_text('"a"\n"b"\n')

    write_sealed(folder.parent / "again", format="dalr-features", version=1, metadata=metadata, fill=fill)
    return open_store(folder.parent / "again").read(np.array([0, 1]))


WEIGHTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "encoder": ("bert/model.safetensors", encoder),
    "SentenceTransformer": ("teacher/model.safetensors", encoder),
    "image model": ("clip/model.safetensors", lambda folder: load_vision_model(str(folder))),
    "published": ("published/model.safetensors", lambda folder: import_checkpoint(folder, folder / "out")),
    "heads": ("teacher/heads.safetensors", head_of),
    "store": ("store/vectors-00000.safetensors", sealed_again),
}


@pytest.mark.parametrize("reader", WEIGHTS)
def test_malformed_safetensors_are_refused_by_every_reader(places: Path, reader: str) -> None:
    name, read = WEIGHTS[reader]
    path = places / name
    for kind, content in MALFORMED.items():
        path.write_bytes(content)
        with bounded(), pytest.raises(DalrError) as caught:
            read(path.parent)
        assert path.name in str(caught.value) or str(path.parent) in str(caught.value), kind


JSON: dict[str, bytes] = {
    "empty": b"",
    "a brace": b"{",
    "null": b"null",
    "a number": b"3",
    "a list": b"[]",
    "an object": b"{}",
    "a list of null": b"[null]",
    "nested lists": b"[" * 100_000,
    "nested objects": DEEP,
    "a long number": b"1" * 100_000,
    "a large number": b'{"num_hidden_layers": 1e999, "hidden_size": 1e999}',
    "no number": b'{"hidden_size": NaN, "num_hidden_layers": -Infinity}',
    "no UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "half a character": b'{"model_type": "\\ud800", "type": "\\ud800"}',
    "NUL": b'{"model_type": "bert\x00"}',
    "bytes": bytes(1000),
    "keys": json.dumps({f"k{number}": number for number in range(50_000)}).encode(),
}
CLAIMS: dict[str, dict[str, object]] = {
    "layers without end": {"num_hidden_layers": 10**9},
    "negative layers": {"num_hidden_layers": -1},
    "labels without end": {"num_labels": 10**9},
    "words without end": {"vocab_size": 10**12},
    "positions without end": {"max_position_embeddings": 10**12},
    "heads without end": {"num_attention_heads": 10**9},
    "width without end": {"hidden_size": 10**9},
    "another layer dimension": {"intermediate_size": 10**11},
    "words": {"num_hidden_layers": "many", "hidden_size": "wide"},
}
MODEL_FILES: dict[str, Callable[[Path], object]] = {
    "bert/config.json": encoder,
    "bert/tokenizer.json": encoder,
    "bert/tokenizer_config.json": encoder,
    "teacher/modules.json": lambda folder: (ends_in_normalize(StudentConfig(model=str(folder))), encoder(folder)),
    "teacher/1_Pooling/config.json": lambda folder: encoder(folder.parent),
    "teacher/sentence_bert_config.json": encoder,
    "teacher/config_sentence_transformers.json": encoder,
    "clip/config.json": lambda folder: load_vision_model(str(folder)),
    "clip/preprocessor_config.json": lambda folder: load_vision_model(str(folder)),
    "published/config.json": lambda folder: import_checkpoint(folder, folder / "out"),
}


@pytest.mark.parametrize("name", MODEL_FILES)
def test_malformed_settings_of_a_model_end_in_a_model_or_an_error_of_ours(places: Path, name: str) -> None:
    path = places / name
    for content in JSON.values():
        path.write_bytes(content)
        with bounded():
            peek_config(str(path.parent))
            attempt(lambda: MODEL_FILES[name](path.parent))


@pytest.mark.parametrize("name", ["bert/config.json", "clip/config.json", "published/config.json"])
@pytest.mark.parametrize("claim", CLAIMS)
def test_a_configuration_that_claims_too_much_is_refused_before_it_is_built(
    places: Path, name: str, claim: str
) -> None:
    path = places / name
    config = json.loads(path.read_text())
    towers = [config[key] for key in ("text_config", "vision_config") if key in config] or [config]
    for tower in towers:
        tower.update(CLAIMS[claim])
    path.write_text(json.dumps(config))
    with bounded(), pytest.raises(DalrError, match=str(path.parent)):
        MODEL_FILES[name](path.parent)


def attempt(read: Callable[[], object]) -> str | None:
    """The text of the error, if there is one; any that is not ours comes through."""
    try:
        read()
    except DalrError as error:
        return str(error)
    return None


OURS: dict[str, Callable[[Path], object]] = {
    "run.json": lambda folder: (attempt(lambda: recipe_of_run(folder)), read_history(folder)),
    "metrics.jsonl": read_history,
    "evaluation.json": lambda folder: read_results(folder / "evaluation.json"),
    "ids.jsonl": lambda folder: read_ids(folder / "ids.jsonl"),
    MANIFEST: lambda folder: read_manifest(folder, format="x", version=1, remedy="make it again"),
}


@pytest.mark.parametrize("name", OURS)
def test_malformed_files_of_ours_end_in_an_error_that_names_them(tmp_path: Path, name: str) -> None:
    if name == "metrics.jsonl":
        (tmp_path / "run.json").write_text("{}")
    for kind, content in JSON.items():
        (tmp_path / name).write_bytes(content)
        with bounded():
            error = attempt(lambda: OURS[name](tmp_path))
        assert error is None or str(tmp_path) in error, kind
        assert error is not None or kind in ("an object", "keys") or (kind, name) == ("empty", "ids.jsonl"), kind


METADATA: dict[str, object] = {
    "none": {},
    "words": {
        "dim": "x",
        "rows": "y",
        "shard_rows": "z",
        "source": {},
        "step": "x",
        "score": "y",
        "truncated": "z",
    },
    "null": dict.fromkeys(("dim", "rows", "shard_rows", "source", "step", "truncated")),
    "no shard": {"dim": 4, "rows": 10**15, "shard_rows": 1, "source": {}, "step": 1e999, "score": None},
    "shards of nothing": {"dim": 4, "rows": 2, "shard_rows": 0, "source": {}, "step": [], "score": None},
    "shards of less": {"dim": 4, "rows": 2, "shard_rows": -1, "source": {}, "step": {}, "score": None},
    "shards without end": {"dim": 4, "rows": 2, "shard_rows": 2**63, "source": {}, "step": "one", "score": None},
    "no dimension": {"dim": 0, "rows": 2, "shard_rows": 9, "source": {}, "step": 1},
    "another dimension": {"dim": 10**12, "rows": 2, "shard_rows": 9, "source": {}, "step": None, "score": 3},
    "no source": {"dim": 4, "rows": 2, "shard_rows": 9, "source": 3, "step": "", "score": [1]},
}


@pytest.mark.parametrize("kind", METADATA)
@pytest.mark.parametrize("format", ["dalr-features", "dalr-checkpoint"])
def test_metadata_that_was_sealed_wrong_is_refused(tmp_path: Path, kind: str, format: str) -> None:
    """A seal guards against accidents; whoever writes a folder can seal it."""

    def fill(temporary: Path) -> None:
        (temporary / "ids.jsonl").write_text('"a"\n"b"\n')

    metadata = METADATA[kind]
    assert isinstance(metadata, dict)
    write_sealed(tmp_path / "s", format=format, version=1, metadata=metadata, fill=fill)
    read: Callable[[Path], object] = {"dalr-features": open_store, "dalr-checkpoint": read_checkpoint}[format]
    with bounded(), pytest.raises(DalrError, match=str(tmp_path / "s")):
        read(tmp_path / "s")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "..", "", ".", "a//b", "C:\\x", "a\0b", "x" * 300]
)
def test_a_manifest_that_names_files_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    write_sealed(tmp_path / "s", format="x", version=1, metadata={}, fill=lambda folder: None)
    (tmp_path / "x").write_text("outside")
    manifest = json.loads((tmp_path / "s" / MANIFEST).read_text())
    del manifest["sha256"]
    manifest["files"] = {name: {"bytes": 7, "sha256": "0" * 64}}
    from dalr.io.sealed import _content_sha256

    (tmp_path / "s" / MANIFEST).write_text(json.dumps(manifest | {"sha256": _content_sha256(manifest)}))
    with pytest.raises(DalrError, match=str(tmp_path / "s")):
        read_manifest(tmp_path / "s", format="x", version=1, remedy="make it again")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
YAML: dict[str, bytes] = {
    "empty": b"",
    "a word": b"x",
    "a list": b"- 1\n- 2\n",
    "aliases": LAUGHS.encode(),
    "merge keys": b"a: &a {x: 1}\nb:\n  <<: *a\n",
    "nested lists": b"a: " + b"[" * 50_000,
    "nested keys": "\n".join(" " * depth + "a:" for depth in range(2_000)).encode(),
    "a tag": b"name: !!python/name:os.system\n",
    "a directive": b"%YAML 9.9\n---\nname: x\n",
    "two documents": b"name: x\n---\nname: y\n",
    "a tab": b"a:\n\tb: 1\n",
    "NUL": b"name: a\0b\n",
    "no UTF-8": b"name: \xff\n",
    "UTF-16": "name: x\n".encode("utf-16"),
    "half a character": b"name: \xed\xa0\x80\n",
    "open quotes": b"name: '" + b"x" * 50_000,
    "a key of many lines": b"? [a, b]\n: 1\n",
    "a long number": b"seed: " + b"9" * 50_000 + b"\n",
    "many keys": b"".join(b"k%d: 1\n" % number for number in range(3_500)),
    "more keys": b"".join(b"k%d: 1\n" % number for number in range(200_000)),
    "one long key": b"k" * 5_000_000 + b": 1\n",
    "many lines of nothing": b"\n" * 3_000_000,
    "itself": b"extends: recipe.yaml\n",
    "a device": b"extends: /dev/zero\n",
    "a folder": b"extends: /\n",
    "a long name": b"extends: " + b"x" * 5_000 + b"\n",
}


@pytest.mark.parametrize("kind", YAML)
def test_malformed_recipes_are_refused_with_their_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(YAML[kind])
    with bounded(), pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load_recipe(str(path))
