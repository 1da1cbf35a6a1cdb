"""Published checkpoints come in with the vectors they were published with, and with every name accounted for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dalr.errors import ConfigError, ModelFileError, StorageError
from dalr.io.sealed import read_manifest, verify_sealed
from dalr.models.config import EncoderConfig, StudentConfig
from dalr.models.embedding import embed
from dalr.models.importing.checkpoint import import_checkpoint
from dalr.models.loading import load_encoder
from published_checkpoints import LAYOUTS, SENTENCES, Published, copy_of, mcse, simcse, simcse_converted
from tiny import Outcome, Toys

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]


@pytest.fixture(scope="module", params=list(LAYOUTS))
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A checkpoint of each layout; read only."""
    return LAYOUTS[request.param](tmp_path_factory.mktemp("published") / request.param)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """SimCSE's layout; read only."""
    return simcse(tmp_path_factory.mktemp("published") / "plain")


@pytest.fixture
def copy(plain: Published, tmp_path: Path) -> Published:
    """SimCSE's layout, to change."""
    return copy_of(plain, tmp_path / "checkpoint")


def vectors(folder: Path) -> torch.Tensor:
    """What the library itself gives, with nothing said about pooling."""
    from sentence_transformers import SentenceTransformer

    return torch.from_numpy(SentenceTransformer(str(folder), device="cpu").encode(SENTENCES))


def test_vectors_are_the_first_token_of_the_published_encoder(published: Published, tmp_path: Path) -> None:
    import_checkpoint(published.folder, tmp_path / "out")
    torch.testing.assert_close(vectors(tmp_path / "out"), published.cls(), rtol=0, atol=1e-6)
    ours = torch.from_numpy(embed(load_encoder(EncoderConfig(model=str(tmp_path / "out"))), SENTENCES))
    torch.testing.assert_close(ours, published.cls(), rtol=0, atol=1e-6)


def test_a_kept_head_follows_the_pooling(published: Published, tmp_path: Path) -> None:
    """The trained head, and never the encoder's own pooler, which MCSE's layout has as well."""
    import_checkpoint(published.folder, tmp_path / "out", head="keep")
    with torch.inference_mode():
        expected = published.head(published.cls())
    torch.testing.assert_close(vectors(tmp_path / "out"), expected, rtol=0, atol=1e-6)


def test_mean_pooling_where_it_is_asked_for(plain: Published, tmp_path: Path) -> None:
    import_checkpoint(plain.folder, tmp_path / "out", pooling="mean")
    states, mask = plain.states()
    expected = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(vectors(tmp_path / "out"), expected, rtol=0, atol=1e-6)


def test_the_result_is_sealed_and_holds_nothing_but_the_model(published: Published, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    import_checkpoint(published.folder, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out", format="dalr-imported-model", version=1, remedy="")
    verify_sealed(tmp_path / "out", manifest, remedy="")
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert {"import.json", "model.safetensors", "modules.json", "1_Pooling/config.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".md", ".py")) or "plain" in name for name in names)
    assert not any("pool" in name or "mlp" in name for name in load_file(tmp_path / "out" / "model.safetensors"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_record_says_what_was_taken_dropped_and_not_opened(tmp_path: Path) -> None:
    published = mcse(tmp_path / "checkpoint")
    imported = import_checkpoint(published.folder, tmp_path / "out", method="mcse")
    record = json.loads((tmp_path / "out" / "import.json").read_text())
    assert record["prefix"] == "bert."
    assert record["parameters"] == len(published.encoder.state_dict()) - 2, "all but its own pooler"
    assert [(entry["group"], len(entry["names"])) for entry in record["dropped"]] == [
        ("bert.pooler", 2),
        ("pooler", 2),
    ]
    assert record["not_opened"] == ["mcse.pt", "training_args.bin"]
    assert (record["method"], record["pooling"], record["head"]["choice"]) == ("mcse", "cls", "drop")
    shown = "\n".join(imported.lines())
    assert "2 of pooler: sentence head" in shown
    assert "not opened     mcse.pt, training_args.bin" in shown
    assert str(tmp_path) not in json.dumps(record)


def test_the_longest_input_is_the_encoders_own(tmp_path: Path) -> None:
    """RoBERTa has two positions more than it can use; one token too many would be an index out of range."""
    import_checkpoint(LAYOUTS["roberta"](tmp_path / "r").folder, tmp_path / "out")
    encoder = load_encoder(EncoderConfig(model=str(tmp_path / "out")))
    assert encoder.max_seq_length == 48
    assert embed(encoder, ["dog " * 100]).shape == (1, 32)
    import_checkpoint(LAYOUTS["simcse"](tmp_path / "b").folder, tmp_path / "out-b")
    assert load_encoder(EncoderConfig(model=str(tmp_path / "out-b"))).max_seq_length == 48


def test_safetensors_are_taken_where_there_are_both(copy: Published, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(copy.weights(), copy.folder / "model.safetensors")
    (copy.folder / "pytorch_model.bin").write_bytes(b"not opened")
    imported = import_checkpoint(copy.folder, tmp_path / "out")
    assert (imported.weights, imported.not_opened) == (
        "model.safetensors",
        ("pytorch_model.bin", "training_args.bin"),
    )
    torch.testing.assert_close(vectors(tmp_path / "out"), copy.cls(), rtol=0, atol=1e-6)


def test_a_checkpoint_without_a_tokenizer_is_refused(copy: Published, tmp_path: Path) -> None:
    """transformers would make one up, with five tokens."""
    for name in ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt"):
        (copy.folder / name).unlink(missing_ok=True)
    with pytest.raises(ModelFileError, match=r"no tokenizer in it; expected one of tokenizer\.json"):
        import_checkpoint(copy.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_method_says_what_becomes_of_the_head(plain: Published, tmp_path: Path) -> None:
    assert import_checkpoint(plain.folder, tmp_path / "a", method="simcse-supervised").head == "keep"
    assert import_checkpoint(plain.folder, tmp_path / "b", method="simcse-supervised", head="drop").head == "drop"
    assert import_checkpoint(plain.folder, tmp_path / "c", method="dalr").head == "drop"


def without(part: str) -> Change:
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def with_new(name: str, value: torch.Tensor) -> Change:
    return lambda weights: weights | {name: value}


def second_encoder(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return weights | {name.replace("bert.", "encoder.bert."): value for name, value in weights.items()}


def not_a_number(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return weights | {"bert.embeddings.LayerNorm.weight": torch.full((32,), float("nan"))}


def expanded(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Four bytes that claim to be a whole matrix."""
    name = "bert.embeddings.word_embeddings.weight"
    return weights | {name: torch.zeros(1).expand(weights[name].shape)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without("layer.1."), "16 encoder parameters missing: encoder.layer.1."),
        (without("LayerNorm.bias"), "5 encoder parameters missing"),
        (
            with_new("router.gate", torch.ones(3)),
            "1 parameter of 'router', which no known method has (router.gate)",
        ),
        (with_new("bert.extra", torch.ones(3)), "1 parameter of 'bert'"),
        (with_new("bert.embeddings.LayerNorm.bias", torch.ones(3)), "1 encoder parameter of another shape"),
        (
            with_new("bert.embeddings.LayerNorm.bias", torch.ones(32).int()),
            "1 encoder parameter not finite numbers",
        ),
        (not_a_number, "1 encoder parameter not finite numbers: bert.embeddings.LayerNorm.weight"),
        (second_encoder, "2 encoders in it, under 'bert.', 'encoder.bert.'"),
        (without("bert."), "none of its 2 names is a parameter of the architecture in config.json"),
        (expanded, "1 tensors are not plain arrays"),
        (lambda weights: {"state_dict": weights}, "found 1 other things: 'state_dict' (dict)"),
        (lambda weights: {}, "expected tensors by name, found dict"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_count(
    copy: Published, tmp_path: Path, change: Change, expected: str
) -> None:
    copy.change(change)
    with pytest.raises(ModelFileError) as caught:
        import_checkpoint(copy.folder, tmp_path / "out")
    assert expected in str(caught.value)
    assert str(copy.folder / "pytorch_model.bin") in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_everything_that_is_wrong_comes_at_once(copy: Published, tmp_path: Path) -> None:
    copy.change(lambda weights: not_a_number(without("layer.1.")(weights)) | {"a.b": torch.ones(1)})
    with pytest.raises(ModelFileError) as caught:
        import_checkpoint(copy.folder, tmp_path / "out")
    assert len(caught.value.problems) == 3


def test_unknown_parameters_are_left_out_where_that_is_said(copy: Published, tmp_path: Path) -> None:
    copy.change(with_new("router.gate", torch.ones(3)))
    imported = import_checkpoint(copy.folder, tmp_path / "out", drop_unknown=True)
    assert any("1 of router: unknown" in line for line in imported.lines())
    torch.testing.assert_close(vectors(tmp_path / "out"), copy.cls(), rtol=0, atol=1e-6)


def test_a_head_that_is_not_there_cannot_be_kept(copy: Published, tmp_path: Path) -> None:
    copy.change(without("mlp."))
    with pytest.raises(ConfigError, match="no affine sentence head"):
        import_checkpoint(copy.folder, tmp_path / "out", head="keep")


def test_another_tokenizer_is_refused(copy: Published, tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    BertTokenizerFast(vocab={f"w{n}": n for n in range(500)} | {"[UNK]": 500}).save_pretrained(copy.folder)
    with pytest.raises(ModelFileError, match=r"its tokenizer has 50\d tokens, the encoder 107"):
        import_checkpoint(copy.folder, tmp_path / "out")


def test_what_is_no_checkpoint_folder_is_refused(copy: Published, tmp_path: Path) -> None:
    for place in (copy.folder / "pytorch_model.bin", tmp_path / "gone"):
        with pytest.raises(ModelFileError, match="expected the folder of a checkpoint"):
            import_checkpoint(place, tmp_path / "out")
    (copy.folder / "pytorch_model.bin").rename(copy.folder / "pytorch_model-00001-of-00001.bin")
    with pytest.raises(
        ModelFileError, match=r"expected model.safetensors or pytorch_model.bin .*, found config.json"
    ):
        import_checkpoint(copy.folder, tmp_path / "out")


def test_somebody_elses_folder_is_not_overwritten_and_an_import_is_replaced(
    plain: Published, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(StorageError, match="nothing was written"):
        import_checkpoint(plain.folder, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"
    shutil.rmtree(tmp_path / "out")
    import_checkpoint(plain.folder, tmp_path / "out", pooling="mean")
    import_checkpoint(plain.folder, tmp_path / "out")
    torch.testing.assert_close(vectors(tmp_path / "out"), plain.cls(), rtol=0, atol=1e-6)


def test_the_same_checkpoint_gives_the_same_bytes(plain: Published, tmp_path: Path) -> None:
    """No random pooler in it."""
    for name in ("a", "b"):
        import_checkpoint(plain.folder, tmp_path / name)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_an_import_is_a_student_and_a_teacher_and_can_be_evaluated(
    toys: Toys, tmp_path: Path, cli: Callable[..., Outcome]
) -> None:
    student, teacher = simcse(tmp_path / "s"), simcse_converted(tmp_path / "t")
    for checkpoint, out, options in ((student, "student", []), (teacher, "teacher", ["--head", "keep"])):
        done = cli("import", checkpoint.folder, "--out", tmp_path / out, "--method", "simcse", *options)
        assert done.code == 0, done.err
        assert f"model: {tmp_path / out}" in done.out
        assert "taken" in done.out
    recipe = toys.recipe(
        tmp_path,
        student={"model": str(tmp_path / "student")},
        teachers=[{"model": str(tmp_path / "teacher")}],
        objective={"infonce": {}, "list_net": {}},
    )
    trained = cli("train", recipe, "--out", tmp_path / "run", "-q")
    assert trained.code == 0, trained.err
    assert load_encoder(StudentConfig(model=str(tmp_path / "run" / "model")))[1].pooling_mode == "cls"
    refused = cli("evaluate", tmp_path / "student", "--data", tmp_path / "no-data", "--tasks", "STS12")
    assert refused.code == 3, "the model is fine, the data is not there"


@pytest.mark.parametrize(("option", "value"), [("--head", "chop"), ("--pooling", "max"), ("--method", "gpt")])
def test_options_are_closed_sets(
    plain: Published, tmp_path: Path, cli: Callable[..., Outcome], option: str, value: str
) -> None:
    done = cli("import", plain.folder, "--out", tmp_path / "out", option, value)
    assert done.code == 2
    assert value in done.err
