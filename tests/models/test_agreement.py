"""A tokenizer, a configuration and weights that do not fit each other are refused when they are loaded."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dalr.errors import ConfigError, DalrError, ModelFileError
from dalr.models.agreement import require_files_agree
from dalr.models.config import EncoderConfig
from dalr.models.embedding import embed
from dalr.models.loading import load_encoder
from dalr.training.check import check_recipe
from tiny import Toys, captions, save_tiny_bert, save_tiny_encoder, save_tiny_sentence_transformer

LONG = " ".join(captions(40))
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load(folder: Path, **settings: Any) -> Any:
    return load_encoder(EncoderConfig(model=str(folder), **{"pooling": "mean"} | settings))


def add_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    tokenizer.add_tokens(["elephant", "giraffe"])
    tokenizer.save_pretrained(folder)


def shift_ids(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text())
    tree["model"]["vocab"]["dog"] = 5_000
    path.write_text(json.dumps(tree))


def empty_vocabulary(folder: Path) -> None:
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text())
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    tree["model"]["vocab"] = {piece: tree["model"]["vocab"][piece] for piece in specials}
    path.write_text(json.dumps(tree))


def negative_length(folder: Path) -> None:
    change(folder / "tokenizer_config.json", model_max_length=-5)


def length_in_words(folder: Path) -> None:
    change(folder / "tokenizer_config.json", model_max_length="long")


def pointer_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_text(POINTER)


def pointer_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(POINTER)


BROKEN = {
    add_tokens: r"2 of the tokenizer's \d+ tokens have no row in the embedding of \d+, such as 'elephant'",
    shift_ids: r"1 of the tokenizer's \d+ tokens have no row in the embedding of \d+, such as 'dog' \(id 5000\)",
    empty_vocabulary: "the tokenizer's vocabulary is empty",
    negative_length: "model_max_length is -5, expected a number of tokens",
    length_in_words: "model_max_length is 'long', expected a number of tokens",
    pointer_weights: "model.safetensors is a git-LFS pointer, not the file itself; fetch it with: git lfs pull",
    pointer_tokenizer: "tokenizer.json is a git-LFS pointer",
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_what_the_files_say_is_seen_by_check_and_when_it_is_loaded(toys: Toys, tmp_path: Path, damage: Any) -> None:
    folder = save_tiny_bert(tmp_path / "bert")
    require_files_agree(folder, "model")
    damage(folder)
    with pytest.raises(ModelFileError, match=BROKEN[damage]):
        load(folder)
    recipe = toys.recipe(tmp_path, teachers=[{"model": str(folder), "pooling": "cls"}])
    error = check_recipe(str(recipe), [], against=None).error
    assert isinstance(error, ModelFileError)
    with pytest.raises(ModelFileError, match=BROKEN[damage]):
        raise error


def test_ids_beyond_the_weights_are_seen_though_the_configuration_hides_them(tmp_path: Path) -> None:
    """`vocab_size` is the tokenizer's, and the weights have fewer rows: transformers would resize or fail."""
    folder = save_tiny_bert(tmp_path / "bert")
    add_tokens(folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    change(folder / "config.json", vocab_size=size + 2)
    with pytest.raises(ModelFileError):
        load(folder)


@pytest.mark.parametrize(("kind", "usable"), [("xlm-roberta", 48), ("mpnet", 48), ("distilbert", 48)])
@pytest.mark.parametrize("stated", [50, 1_024])
def test_a_stated_length_beyond_the_positions_is_used_up_to_them_with_a_note(
    tmp_path: Path, kind: str, usable: int, stated: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_tiny_encoder(tmp_path / kind, kind)
    change(folder / "tokenizer_config.json", model_max_length=stated)
    with caplog.at_level(logging.WARNING, logger="dalr"):
        encoder = load(folder)
    assert encoder.max_seq_length == usable
    if kind != "distilbert":  # sentence-transformers itself stops at max_position_embeddings, which are these
        assert f"it has {usable} positions" in caplog.text
    assert np.isfinite(embed(encoder, [LONG])).all()


def test_the_length_of_a_sentence_transformer_is_held_against_its_positions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_tiny_sentence_transformer(tmp_path / "model")
    change(folder / "tokenizer_config.json", model_max_length=1_024)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 1_024}))
    encoder = load(folder, pooling=None)
    assert encoder.max_seq_length == 48
    assert np.isfinite(embed(encoder, [LONG])).all()


def test_a_length_that_is_not_stated_is_that_of_the_positions_without_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_tiny_bert(tmp_path / "bert")
    change(folder / "tokenizer_config.json", model_max_length=int(1e30))
    assert load(folder).max_seq_length == 48
    assert caplog.text == ""


def test_a_model_without_positions_and_length_reads_any_text(tmp_path: Path) -> None:
    """As XLNet: transformers states 1e30."""
    from test_other_encoders import XLNET_SIZES, save

    folder = save(tmp_path / "xlnet", "xlnet", **XLNET_SIZES)
    change(folder / "tokenizer_config.json", model_max_length=int(1e30))
    short, long = embed(load(folder), [captions(1)[0], LONG])
    assert np.isfinite(long).all()
    assert not np.allclose(short, long)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_length_that_leaves_no_room_for_a_word_is_refused(tmp_path: Path, length: int) -> None:
    folder = save_tiny_bert(tmp_path / "bert")
    change(folder / "tokenizer_config.json", model_max_length=length)
    with pytest.raises(ModelFileError, match=rf"{length}.*expected"):
        load(folder)


def test_more_tokens_than_positions_are_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    folder = save_tiny_bert(tmp_path / "bert")
    with pytest.raises(ConfigError, match="max_tokens is 49, but the model has 48 positions; lower it"):
        load(folder, max_tokens=49)
    assert load(folder, max_tokens=48).max_seq_length == 48


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_pooling_that_is_named_and_not_there_is_said(tmp_path: Path, what: str) -> None:
    folder = save_tiny_sentence_transformer(tmp_path / "model")
    shutil.rmtree(folder / "1_Pooling")
    if what == "empty":
        (folder / "1_Pooling").mkdir()
    with pytest.raises(ModelFileError, match=r"1_Pooling.*copy the complete model folder"):
        load(folder, pooling=None)


def test_a_normalize_module_needs_no_folder(tmp_path: Path) -> None:
    folder = save_tiny_sentence_transformer(tmp_path / "model")
    shutil.rmtree(folder / "2_Normalize", ignore_errors=True)
    assert embed(load(folder, pooling=None), captions(1)).shape == (1, 24)


def test_check_knows_what_is_no_student(toys: Toys, tmp_path: Path) -> None:
    from test_other_encoders import save_static

    static = str(save_static(tmp_path / "vectors"))
    refused = {
        "static": ({"model": static}, "a student is a transformer, and these are static embeddings"),
        "averaged": ({"model": str(toys.student), "pooling": "avg_first_last"}, "avg_first_last is for frozen"),
    }
    for name, (student, reason) in refused.items():
        folder = tmp_path / name
        folder.mkdir()
        recipe = toys.recipe(folder, student=student, teachers=[{"model": static}])
        error = check_recipe(str(recipe), [], against=None).error
        assert isinstance(error, ConfigError)
        with pytest.raises(DalrError, match=reason):
            raise error
