"""Where a model is: folders, packages, hub ids; what is missing is named with what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dalr.errors import ModelFileError
from dalr.models.reference import find_model, hidden_dim, peek_config

HUB_ID = "princeton-nlp/unsup-simcse-bert-base-uncased"


def refused(reference: str) -> str:
    with pytest.raises(ModelFileError) as caught:
        find_model(reference)
    assert caught.value.exit_code == 4
    assert f"model {reference!r}" in str(caught.value)
    return str(caught.value)


def test_a_folder_is_found_as_it_is_written(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(str(tiny_bert)) == tiny_bert
    monkeypatch.setenv("MODELS", str(tiny_bert.parent))
    assert find_model("$MODELS/bert") == tiny_bert
    monkeypatch.chdir(tiny_bert.parent)
    assert find_model("bert") == Path("bert")
    assert find_model("./bert") == Path("bert")


def test_a_sentence_transformer_folder_is_found(tiny_teacher: Path) -> None:
    assert find_model(str(tiny_teacher)) == tiny_teacher


def test_a_folder_inside_a_package_is_found(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny_models").mkdir()
    (tmp_path / "tiny_models" / "__init__.py").write_text("raise RuntimeError('imported')")
    shutil.copytree(tiny_bert, tmp_path / "tiny_models" / "model")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find_model("package:tiny_models/model") == tmp_path / "tiny_models" / "model"
    assert "tiny_models" not in sys.modules, "found without running it"
    assert "has no folder 'other'" in refused("package:tiny_models/other")


@pytest.mark.parametrize("reference", ["package:no_such/model", "package:a-b/c", "package:", "package:a.b/c"])
def test_a_package_that_is_not_installed_is_named(reference: str) -> None:
    assert "is not installed: pip install" in refused(reference)


@pytest.mark.parametrize("reference", ["/nowhere/model", "./nowhere", "../nowhere/at/all", "a/b/c", "~/nowhere"])
def test_a_missing_folder_is_named_in_full(reference: str) -> None:
    message = refused(reference)
    assert "no such folder: /" in message


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("x")
    assert "is a file" in refused(str(tmp_path / "m"))


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    assert "no config.json and no modules.json" in refused(str(tmp_path))


def test_a_folder_with_pickled_weights_only_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    import torch

    folder = tmp_path / "bin-only"
    shutil.copytree(tiny_bert, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"x": torch.ones(1)}, folder / "pytorch_model.bin")
    message = refused(str(folder))
    assert "no safetensors weights" in message
    assert ".bin" in message
    assert "convert" in message


def test_a_hub_id_offline_names_the_model_the_cache_and_the_command() -> None:
    from huggingface_hub import constants

    message = refused(HUB_ID)
    assert str(constants.HF_HUB_CACHE) in message
    assert f"hf download {HUB_ID}" in message


@pytest.mark.parametrize("reference", ["no such name", "a..b", "-x/y", "ünï/cöde", ""])
def test_what_is_no_hub_id_either_is_refused(reference: str) -> None:
    refused(reference)


IN_A_CHILD = """
from dalr.models.reference import find_model
from dalr.errors import ModelFileError
try:
    find_model("princeton-nlp/unsup-simcse-bert-base-uncased")
except ModelFileError as error:
    print(error)
import sys
print([name for name in ("torch", "transformers") if name in sys.modules])
"""


def test_without_a_connection_it_gives_up_at_once_even_when_not_told_to_be_offline(tmp_path: Path) -> None:
    """R30: no loop of retries; the hub client itself would go on for minutes."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD],
        env=os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    message, modules = done.stdout.splitlines()
    assert "hf download" in message
    assert modules == "[]"


def test_the_dim_is_read_without_loading(tiny_bert: Path, tiny_teacher: Path) -> None:
    config = peek_config(str(tiny_bert))
    assert config is not None
    assert hidden_dim(config) == 32
    teacher = peek_config(str(tiny_teacher))
    assert teacher is not None
    assert hidden_dim(teacher) == 24
    assert hidden_dim({"dim": 5}) == 5
    assert hidden_dim({"d_model": 7}) == 7
    assert hidden_dim({"hidden_size": "wide"}) is None


@pytest.mark.parametrize("reference", ["/nowhere", HUB_ID, "no such name", "package:no_such_package/x", ""])
def test_peeking_at_a_missing_model_gives_nothing(reference: str) -> None:
    assert peek_config(reference) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "\udc80"])
def test_peeking_at_a_broken_config_gives_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert peek_config(str(tmp_path)) is None
