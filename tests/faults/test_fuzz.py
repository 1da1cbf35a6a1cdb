"""R33: whatever manifest, recipe, lines, index or settings hold, only errors of ours come out.

Mutations of good files: bytes changed, cut, doubled, and values of a JSON tree exchanged. A few of each in every
run; ten thousand of each behind `slow`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dalr.data.dataset import read_pairs
from dalr.data.reading import Reading
from dalr.errors import DalrError, Problem
from dalr.evaluation.results import read_results
from dalr.features.importing import read_ids
from dalr.features.store import open_store, write_store
from dalr.io.sealed import MANIFEST, _content_sha256, read_manifest, verify_sealed, write_sealed
from dalr.models.claims import require_plausible
from dalr.models.foreign import refuse_foreign_code
from dalr.models.importing.weights import read_weights
from dalr.models.layout import read_layout
from dalr.recipe.loading import load_recipe, recipe_source, shipped_recipes
from dalr.recipe.schema import Recipe
from dalr.report.history import read_history

FEW, MANY = 25, 10_000

Case = Callable[[Path, st.DataObject], None]


def mutated(data: st.DataObject, content: bytes) -> bytes:
    """A few bytes cut, changed, put in or doubled."""
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        end = place + data.draw(st.one_of(st.integers(0, 4), st.integers(0, 400)))
        put = data.draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from(
                    [b"{", b"[", b'"', b"null", b"-1", b"1e999", b": ", b"\n", b"\xff", b"\\ud800", b"\0"]
                ),
                st.just(content[place:end] * 2),
            )
        )
        content = content[:place] + put + content[end:]
    return content


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["../../x", "/etc/passwd", "C:\\x", "a\0b", "x" * 300, "", "."]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=6,
)


def exchanged(data: st.DataObject, tree: Any) -> Any:
    """The tree with one value, somewhere in it, exchanged, removed or renamed."""
    if isinstance(tree, dict) and tree and data.draw(st.integers(0, 4)):
        key = data.draw(st.sampled_from(sorted(tree)))
        rest = {other: value for other, value in tree.items() if other != key}
        match data.draw(st.sampled_from(["inside", "inside", "gone", "renamed"])):
            case "gone":
                return rest
            case "renamed":
                return rest | {data.draw(st.text(max_size=8)): tree[key]}
            case _:
                return rest | {key: exchanged(data, tree[key])}
    if isinstance(tree, list) and tree and data.draw(st.integers(0, 4)):
        place = data.draw(st.integers(0, len(tree) - 1))
        return [*tree[:place], exchanged(data, tree[place]), *tree[place + 1 :]]
    return data.draw(VALUES)


def manifest(folder: Path, data: st.DataObject) -> None:
    """Any content, sealed as if it were right."""
    if not (folder / "s").exists():
        write_sealed(folder / "s", format="x", version=1, metadata={"a": [1]}, fill=lambda f: None)
        (folder / "whole").write_bytes((folder / "s" / MANIFEST).read_bytes())
    whole = (folder / "whole").read_bytes()
    content = mutated(data, whole)
    if data.draw(st.booleans()):
        tree = exchanged(data, {key: value for key, value in json.loads(whole).items() if key != "sha256"})
        content = json.dumps(tree | {"sha256": _content_sha256(tree)} if isinstance(tree, dict) else tree).encode()
    (folder / "s" / MANIFEST).write_bytes(content)
    found = read_manifest(folder / "s", format="x", version=1, remedy="again")
    verify_sealed(folder / "s", found, remedy="again")


def index(folder: Path, data: st.DataObject) -> None:
    """A store whose names and metadata are anything, sealed as if they were right."""
    store = folder / "store"
    if not store.exists():
        write_store(store, ids=["a", "b"], blocks=[np.ones((2, 4))], source={}, origin="x")
        (folder / "shard").write_bytes((store / "vectors-00000.safetensors").read_bytes())
    metadata = {"dim": 4, "rows": 2, "shard_rows": 16_384, "source": {}}
    metadata = exchanged(data, metadata) if data.draw(st.booleans()) else metadata
    names = mutated(data, b'"a"\n"b"\n') if data.draw(st.booleans()) else b'"a"\n"b"\n'
    shard = (folder / "shard").read_bytes()
    shard = mutated(data, shard) if data.draw(st.booleans()) else shard

    def fill(temporary: Path) -> None:
        (temporary / "ids.jsonl").write_bytes(names)
        (temporary / "vectors-00000.safetensors").write_bytes(shard)

    if isinstance(metadata, dict):
        write_sealed(store, format="dalr-features", version=1, metadata=metadata, fill=fill)
        opened = open_store(store)
        assert opened.read(np.arange(len(opened), dtype=np.int64)).shape == (len(opened), opened.dim)


def recipe(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(shipped_recipes()))
    (folder / "recipe.yaml").write_bytes(mutated(data, recipe_source(name).encode()))
    assert isinstance(load_recipe(str(folder / "recipe.yaml")), Recipe)


def lines(folder: Path, data: st.DataObject) -> None:
    """Pairs, names and metrics are JSON lines."""
    row = {"image": "a.jpg", "caption": "a dog", "step": 1, "loss": 2.0, "terms": {"infonce": 1.0}}
    tree = exchanged(data, row) if data.draw(st.booleans()) else row
    content = mutated(data, json.dumps(tree).encode() + b"\n")
    (folder / "metrics.jsonl").write_bytes(content)
    (folder / "run.json").write_text("{}")
    problems: list[Problem] = []
    read_pairs(folder / "metrics.jsonl", problems, {}, reading=Reading(format="jsonl"))
    for read in (read_ids, lambda path: read_history(path.parent)):
        with suppress(DalrError):
            read(folder / "metrics.jsonl")


def result(folder: Path, data: st.DataObject) -> None:
    tree = {"format": "dalr-evaluation", "version": 1, "model": "x", "tasks": {}, "failed": [], "details": {}}
    (folder / "e.json").write_bytes(mutated(data, json.dumps(exchanged(data, tree)).encode()))
    read_results(folder / "e.json")


def settings_of_a_model(folder: Path, data: st.DataObject) -> None:
    tree = {
        "model_type": "bert",
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "attn_implementation": "sdpa",
        "model_args": {"dtype": "float32"},
        "in_features": 3,
        "out_features": 3,
        "vision_config": {"depths": [1, 2]},
    }
    for name in ("config.json", "sentence_bert_config.json"):
        (folder / name).write_bytes(mutated(data, json.dumps(exchanged(data, tree)).encode()))
    with suppress(DalrError):
        require_plausible(folder, shapes=[(2, 2)], where="model")
    refuse_foreign_code([folder], "model")


def names_in_a_checkpoint(folder: Path, data: st.DataObject) -> None:
    part = st.sampled_from(["bert", "module", "encoder", "pooler", "dense", "weight", "mlp", "a", "", "layer", "0"])
    names = data.draw(st.lists(st.lists(part, max_size=6).map(".".join), max_size=12, unique=True))
    expected = ["encoder.layer.0.weight", "a.weight", "pooler.dense.weight"]
    layout = read_layout(names, expected=expected, base="bert", where="checkpoint")
    groups = [name for group in (*layout.dropped, *layout.unknown) for name in group.names]
    assert sorted([*layout.encoder.values(), *groups]) == sorted(names), "every name is accounted for once"


def weights(folder: Path, data: st.DataObject) -> None:
    import torch

    if not (folder / "whole.bin").exists():
        torch.save({"a.b": torch.ones(2, 3), "c": torch.ones(2).half()}, folder / "whole.bin")
    (folder / "pytorch_model.bin").write_bytes(mutated(data, (folder / "whole.bin").read_bytes()))
    for tensor in read_weights(folder / "pytorch_model.bin").values():
        tensor.clone()  # every number is there


CASES: list[Case] = [
    manifest,
    index,
    recipe,
    lines,
    result,
    settings_of_a_model,
    names_in_a_checkpoint,
    weights,
]
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


def fuzz(case: Case, folder: Path, *, examples: int) -> None:
    @settings(max_examples=examples, suppress_health_check=QUIET)
    @given(data=st.data())
    def once(data: st.DataObject) -> None:
        with suppress(DalrError):
            case(folder, data)

    once()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_only_errors_of_ours_come_out(tmp_path: Path, case: Case) -> None:
    fuzz(case, tmp_path, examples=FEW)


@pytest.mark.nightly
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_only_errors_of_ours_come_out_of_ten_thousand(tmp_path: Path, case: Case) -> None:
    fuzz(case, tmp_path, examples=MANY)
