"""Encoders are loaded as stated: pooling, layers, dropout; what is broken or foreign is refused and never run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dalr.errors import ConfigError, ModelFileError
from dalr.models.config import EncoderConfig, StudentConfig
from dalr.models.embedding import embed
from dalr.models.loading import encoder_sha256, load_encoder

SENTENCES = ["a red dog runs on the grass", "two cat", "the first snow of the year in the city", "dog"]


def encoder(folder: Path, **settings: Any) -> EncoderConfig:
    return EncoderConfig(model=str(folder), **settings)


@pytest.fixture
def copy(tmp_path: Path, tiny_bert: Path) -> Path:
    """A plain folder to damage."""
    shutil.copytree(tiny_bert, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def copied_teacher(tmp_path: Path, tiny_teacher: Path) -> Path:
    """A SentenceTransformer folder to damage."""
    shutil.copytree(tiny_teacher, tmp_path / "teacher")
    return tmp_path / "teacher"


def hidden_states(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states and mask of `SENTENCES`, by transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    return states, tokens["attention_mask"]


def test_a_plain_folder_needs_a_stated_pooling(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"set pooling: cls, mean, last or avg_first_last") as caught:
        load_encoder(encoder(tiny_bert))
    assert str(tiny_bert) in str(caught.value)


def test_cls_pooling_is_the_first_token(tiny_bert: Path) -> None:
    states, _ = hidden_states(tiny_bert)
    found = torch.from_numpy(embed(load_encoder(encoder(tiny_bert, pooling="cls")), SENTENCES))
    torch.testing.assert_close(found, states[:, 0], rtol=1e-5, atol=1e-6)


def test_mean_pooling_is_the_mean_over_real_tokens(tiny_bert: Path) -> None:
    states, mask = hidden_states(tiny_bert)
    expected = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    found = torch.from_numpy(embed(load_encoder(encoder(tiny_bert, pooling="mean")), SENTENCES))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_sentence_transformer_keeps_its_own_pooling_and_leaves_normalize_out(tiny_teacher: Path) -> None:
    loaded = load_encoder(encoder(tiny_teacher))
    assert [type(module).__name__ for module in loaded] == ["Transformer", "Pooling"]
    assert loaded[1].pooling_mode == "mean"
    states, mask = hidden_states(tiny_teacher)
    expected = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    found = torch.from_numpy(embed(loaded, SENTENCES))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert (found.norm(dim=1) - 1).abs().min() > 0.1


def test_a_stated_pooling_takes_the_place_of_the_models_own(tiny_teacher: Path) -> None:
    states, _ = hidden_states(tiny_teacher)
    found = torch.from_numpy(embed(load_encoder(encoder(tiny_teacher, pooling="cls")), SENTENCES))
    torch.testing.assert_close(found, states[:, 0], rtol=1e-5, atol=1e-6)


def test_an_encoder_comes_in_eval_mode_on_the_cpu(tiny_bert: Path) -> None:
    loaded = load_encoder(StudentConfig(model=str(tiny_bert), pooling="cls", dropout=0.5))
    assert not any(module.training for module in loaded.modules())
    assert loaded.device.type == "cpu"


@pytest.mark.parametrize("layers", [1, 2])
def test_num_layers_keeps_the_first_layers(tiny_bert: Path, layers: int) -> None:
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(tiny_bert).eval()
    model.encoder.layer = model.encoder.layer[:layers]
    tokens = AutoTokenizer.from_pretrained(tiny_bert)(SENTENCES, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**tokens).last_hidden_state[:, 0]
    loaded = load_encoder(encoder(tiny_bert, pooling="cls", num_layers=layers))
    torch.testing.assert_close(torch.from_numpy(embed(loaded, SENTENCES)), expected, rtol=1e-5, atol=1e-6)
    assert loaded.transformers_model.config.num_hidden_layers == layers


def test_more_layers_than_there_are_is_an_error_with_both_numbers(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match="num_layers is 3, but the encoder has 2 layers"):
        load_encoder(encoder(tiny_bert, pooling="cls", num_layers=3))


def dropouts(loaded: torch.nn.Module) -> set[float]:
    return {module.p for module in loaded.modules() if isinstance(module, torch.nn.Dropout)}


def test_dropout_is_set_where_the_recipe_says_so(tiny_bert: Path, tiny_teacher: Path) -> None:
    assert dropouts(load_encoder(StudentConfig(model=str(tiny_bert), pooling="cls"))) == {0.1}
    assert dropouts(load_encoder(StudentConfig(model=str(tiny_bert), pooling="cls", dropout=0.3))) == {0.3}
    assert dropouts(load_encoder(StudentConfig(model=str(tiny_teacher), dropout=0.0))) == {0.0}


def test_dropout_is_set_or_refused_for_an_encoder_with_other_names_for_it(copy: Path) -> None:
    """DistilBERT calls them `dropout` and `attention_dropout`; a setting must not be silently without effect."""
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(
        vocab_size=200, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=48
    )
    DistilBertModel(config).save_pretrained(copy)
    try:
        loaded = load_encoder(StudentConfig(model=str(copy), pooling="cls", dropout=0.3))
    except ConfigError:
        return
    assert 0.3 in dropouts(loaded)
    assert 0.1 not in dropouts(loaded)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def half_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def a_layer_without_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def weights_of_another_dim(folder: Path) -> None:
    change_config(folder, hidden_size=64)


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def config_without_a_type(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


def unknown_architecture(folder: Path) -> None:
    change_config(folder, model_type="telepathy")


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "damage",
    [
        no_weights,
        half_the_weights,
        empty_weights,
        a_layer_without_weights,
        weights_of_another_dim,
        broken_config,
        config_without_a_type,
        unknown_architecture,
        no_tokenizer,
        broken_tokenizer,
    ],
)
def test_a_broken_model_is_a_model_file_error(copy: Path, damage: Callable[[Path], None]) -> None:
    """Silent repairs count as failures: random weights for a missing layer, an empty vocabulary."""
    damage(copy)
    with pytest.raises(ModelFileError) as caught:
        load_encoder(encoder(copy, pooling="cls"))
    assert str(copy) in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_checkpoint_without_the_unused_pooler_is_loaded(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("pooler.")}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    load_encoder(encoder(copy, pooling="cls"))


def test_weights_under_the_names_of_old_checkpoints_are_found(copy: Path) -> None:
    """bert-base-uncased itself: a prefix, gamma and beta, and heads of its pretraining beside them."""
    from safetensors.torch import load_file, save_file

    expected = embed(load_encoder(encoder(copy, pooling="cls")), SENTENCES)
    weights = load_file(copy / "model.safetensors")
    gamma, beta = ("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")
    old = {f"bert.{name}".replace(*gamma).replace(*beta): value for name, value in weights.items()}
    save_file(old | {"cls.predictions.bias": torch.zeros(3)}, copy / "model.safetensors", metadata={"format": "pt"})
    assert (embed(load_encoder(encoder(copy, pooling="cls")), SENTENCES) == expected).all()


def test_weights_that_the_library_stores_under_other_names_are_found(copy: Path) -> None:
    """Names in the file say too little: transformers converts those of some architectures when it loads."""
    from transformers import NomicBertConfig, NomicBertModel

    config = NomicBertConfig(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
        pad_token_id=0,
    )
    NomicBertModel(config).save_pretrained(copy)
    load_encoder(encoder(copy, pooling="mean"))


def test_files_for_other_runtimes_beside_the_model_are_no_obstacle(copied_teacher: Path) -> None:
    """A whole download of a SentenceTransformer has them, and OpenVINO's weights are a .bin without any pickle."""
    for name in ("openvino/openvino_model.bin", "openvino/openvino_model.xml", "onnx/model.onnx"):
        (copied_teacher / name).parent.mkdir(exist_ok=True)
        (copied_teacher / name).write_bytes(b"x")
    load_encoder(encoder(copied_teacher))


CANARY = "from pathlib import Path\nPath({marker!r}).touch()\nclass Evil:\n    pass\n"


def test_foreign_classes_in_modules_json_are_refused_and_not_run(tmp_path: Path, copied_teacher: Path) -> None:
    marker = tmp_path / "canary"
    (copied_teacher / "evil.py").write_text(CANARY.format(marker=str(marker)))
    for name in ("evil.Evil", "os.system", "subprocess.Popen", "builtins.exec"):
        modules = json.loads((copied_teacher / "modules.json").read_text())
        modules[-1]["type"] = name
        (copied_teacher / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ModelFileError, match="code outside sentence-transformers") as caught:
            load_encoder(encoder(copied_teacher))
        assert name in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("content", ["", "{", "{}", "3", "[3]", '[{"idx": 0}]'])
def test_a_malformed_modules_json_is_a_model_file_error(copied_teacher: Path, content: str) -> None:
    (copied_teacher / "modules.json").write_text(content)
    with pytest.raises(ModelFileError):
        load_encoder(encoder(copied_teacher))


@pytest.mark.parametrize("model_type", ["bert", "evil"])
def test_code_named_by_auto_map_is_not_run(tmp_path: Path, copy: Path, model_type: str) -> None:
    marker = tmp_path / "canary"
    (copy / "evil.py").write_text(CANARY.format(marker=str(marker)))
    change_config(
        copy,
        model_type=model_type,
        auto_map={"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]},
    )
    if model_type == "bert":
        load_encoder(encoder(copy, pooling="cls"))
    else:
        with pytest.raises(ModelFileError):
            load_encoder(encoder(copy, pooling="cls"))
    assert not marker.exists()


def test_a_pickle_beside_the_weights_is_not_opened(tmp_path: Path, copy: Path) -> None:
    import pickle

    marker = tmp_path / "canary"
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt"):
        (copy / name).write_bytes(pickle.dumps(Touch(marker)))
    load_encoder(encoder(copy, pooling="cls"))
    assert not marker.exists()
    pickle.loads((copy / "optimizer.pt").read_bytes())
    assert marker.exists(), "the canary itself works"


def test_a_later_module_with_pickled_weights_is_refused_and_not_run(tmp_path: Path, copied_teacher: Path) -> None:
    import pickle

    marker = tmp_path / "canary"
    modules = json.loads((copied_teacher / "modules.json").read_text())
    name = "sentence_transformers.sentence_transformer.modules.Dense"
    modules[-1] = {"idx": 2, "name": "2", "path": "2_Dense", "type": name}
    (copied_teacher / "modules.json").write_text(json.dumps(modules))
    (copied_teacher / "2_Dense").mkdir()
    (copied_teacher / "2_Dense" / "config.json").write_text('{"in_features": 24, "out_features": 24, "bias": true}')
    (copied_teacher / "2_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(marker), protocol=2))
    with pytest.raises(ModelFileError):
        load_encoder(encoder(copied_teacher))
    assert not marker.exists()


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> object:
        return Path.touch, (self.marker,)


def test_the_content_key_follows_files_and_settings(copy: Path, tiny_bert: Path) -> None:
    key = encoder_sha256(encoder(copy, pooling="cls"))
    assert key == encoder_sha256(encoder(tiny_bert, pooling="cls")), "the place does not matter"
    assert key != encoder_sha256(encoder(copy, pooling="mean"))
    assert key != encoder_sha256(encoder(copy, pooling="cls", num_layers=1))
    (copy / "README.md").write_text("notes")
    assert key == encoder_sha256(encoder(copy, pooling="cls"))
    (copy / "tokenizer_config.json").write_text("{}")
    assert key != encoder_sha256(encoder(copy, pooling="cls"))
