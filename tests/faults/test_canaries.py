"""R31: no file that is read runs anything. What holds a payload is refused by name, or the payload stays unread."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from payloads import change_json, module, object_array, put, raw_pickle, template, torch_file, yaml_tag

from dalr.data.dataset import read_pairs
from dalr.data.reading import Reading
from dalr.errors import DalrError, ModelFileError, Problem
from dalr.features.importing import import_matrix
from dalr.features.source import open_features
from dalr.features.store import open_store, write_store
from dalr.io.sealed import write_sealed
from dalr.models.config import EncoderConfig, StudentConfig
from dalr.models.importing.checkpoint import import_checkpoint
from dalr.models.loading import load_encoder
from dalr.models.vision import load_vision_model
from dalr.recipe.loading import load_recipe
from dalr.training.checkpoint import read_checkpoint
from published_checkpoints import simcse
from tiny import Outcome, TinyData, Toys, recipe_tree
from tiny_images import save_tiny_image_model

Payload = Callable[[Path, Path], None]
"""Called with the folder to arm and the marker."""


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """Where a payload leaves its trace; no test ends with one there."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "a payload was run"


@pytest.fixture
def findable(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules `evil` and `modeling_evil` that anything could import: from the path and from the current folder."""
    for name in ("evil", "modeling_evil"):
        put(tmp_path / "site" / f"{name}.py", module(marker))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.chdir(tmp_path / "site")


class TestEveryPayloadIsArmed:
    """Fired by hand, each one leaves its marker."""

    @pytest.fixture
    def fired(self, tmp_path: Path) -> Path:
        return tmp_path / "fired"

    def test_pickles(self, fired: Path, tmp_path: Path) -> None:
        pickle.loads(raw_pickle(fired))
        assert fired.exists()
        for zipped in (True, False):
            fired.unlink()
            put(tmp_path / "x", torch_file(fired, zipped=zipped))
            torch.load(tmp_path / "x", weights_only=False)
            assert fired.exists()

    def test_arrays(self, fired: Path, tmp_path: Path) -> None:
        put(tmp_path / "x.npy", object_array(fired))
        np.load(tmp_path / "x.npy", allow_pickle=True)
        assert fired.exists()

    def test_modules(self, fired: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        put(tmp_path / "evil_by_hand.py", module(fired))
        monkeypatch.syspath_prepend(tmp_path)
        __import__("evil_by_hand")
        assert fired.exists()

    def test_tags(self, fired: Path) -> None:
        yaml.load(yaml_tag(fired), Loader=yaml.UnsafeLoader)
        assert fired.exists()

    def test_templates(self, fired: Path) -> None:
        import jinja2

        jinja2.Environment().from_string(template(fired)).render()
        assert fired.exists()


# payloads beside what is read: never opened, so the model loads


def pickles_beside(folder: Path, marker: Path) -> None:
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "x.pkl"):
        put(folder / name, torch_file(marker))
    if (folder / "model.safetensors").exists():
        put(folder / "pytorch_model.bin", torch_file(marker))


def classes_beside_a_known_type(folder: Path, marker: Path) -> None:
    put(folder / "modeling_evil.py", module(marker))
    one = "modeling_evil.Evil"
    named = {"AutoConfig": one, "AutoModel": one, "AutoTokenizer": [one, one], "AutoImageProcessor": one}
    for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            change_json(
                folder / name, auto_map=named, trust_remote_code=True, custom_pipelines={"x": {"impl": one}}
            )


def chat_templates(folder: Path, marker: Path) -> None:
    change_json(folder / "tokenizer_config.json", chat_template=template(marker))
    put(folder / "chat_template.jinja", template(marker))


def a_hostile_header(folder: Path, marker: Path) -> None:
    from safetensors.torch import load_file, save_file

    if (folder / "model.safetensors").exists():
        hostile = {"format": "pt", "__reduce__": yaml_tag(marker), "template": template(marker)}
        save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata=hostile)


BESIDE: list[Payload] = [pickles_beside, classes_beside_a_known_type, chat_templates, a_hostile_header]

# payloads that the model asks for: refused


def pickled_weights(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink(missing_ok=True)
    put(folder / "pytorch_model.bin", torch_file(marker))


def old_pickled_weights(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink(missing_ok=True)
    put(folder / "pytorch_model.bin", torch_file(marker, zipped=False))


def bare_pickle(folder: Path, marker: Path) -> None:
    (folder / "model.safetensors").unlink(missing_ok=True)
    put(folder / "pytorch_model.bin", raw_pickle(marker))


def an_architecture_of_its_own(folder: Path, marker: Path) -> None:
    put(folder / "modeling_evil.py", module(marker))
    names = {"AutoConfig": "modeling_evil.EvilConfig", "AutoModel": "modeling_evil.Evil"}
    change_json(folder / "config.json", model_type="evil", auto_map=names)


def kernels_of_the_hub(folder: Path, marker: Path) -> None:
    change_json(folder / "config.json", attn_implementation="evil/kernels")


def an_adapter_of_another_model(folder: Path, marker: Path) -> None:
    names = {"base_model_name_or_path": str(folder.parent), "peft_type": "LORA", "auto_mapping": {"parent": "evil"}}
    change_json(folder / "adapter_config.json", **names)


ASKED_FOR: list[Payload] = [
    pickled_weights,
    old_pickled_weights,
    bare_pickle,
    an_architecture_of_its_own,
    kernels_of_the_hub,
    an_adapter_of_another_model,
]

LOADERS: dict[str, Callable[[Path], object]] = {
    "student": lambda folder: load_encoder(StudentConfig(model=str(folder), pooling="cls", dropout=0.1)),
    "teacher": lambda folder: load_encoder(EncoderConfig(model=str(folder), pooling="cls")),
    "image model": lambda folder: load_vision_model(str(folder)),
    "import": lambda folder: import_checkpoint(folder, folder.parent / "imported"),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_image_model(tmp_path_factory.mktemp("models") / "clip", "clip")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simcse(tmp_path_factory.mktemp("models") / "simcse").folder


@pytest.fixture(params=list(LOADERS))
def loader(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(loader: str, tmp_path: Path, tiny_bert: Path, clip: Path, checkpoint: Path) -> Path:
    """Something that `loader` loads."""
    source = {"student": tiny_bert, "teacher": tiny_bert, "image model": clip, "import": checkpoint}[loader]
    shutil.copytree(source, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.usefixtures("findable")
@pytest.mark.parametrize("arm", BESIDE, ids=lambda arm: arm.__name__)
def test_a_payload_beside_the_model_is_not_opened(loader: str, folder: Path, marker: Path, arm: Payload) -> None:
    arm(folder, marker)
    LOADERS[loader](folder)


@pytest.mark.usefixtures("findable")
@pytest.mark.parametrize("arm", ASKED_FOR, ids=lambda arm: arm.__name__)
def test_a_model_that_needs_its_payload_is_refused(loader: str, folder: Path, marker: Path, arm: Payload) -> None:
    arm(folder, marker)
    with pytest.raises(ModelFileError) as caught:
        LOADERS[loader](folder)
    assert str(folder) in str(caught.value)
    if "pickle" in arm.__name__:
        assert "dalr import" in str(caught.value) or "ask its owner for model.safetensors" in str(caught.value)
    assert not (folder.parent / "imported").exists()


def module_type(name: str) -> Payload:
    def arm(folder: Path, marker: Path) -> None:
        put(folder / "evil.py", module(marker))
        entries = json.loads((folder / "modules.json").read_text())
        entries[-1]["type"] = name
        (folder / "modules.json").write_text(json.dumps(entries))

    return arm


def module_with(kind: str, config: str, **settings: object) -> Payload:
    """A module of the library whose own settings name a class."""

    def arm(folder: Path, marker: Path) -> None:
        place = "sentence_transformers.sentence_transformer.modules"
        place = "sentence_transformers.base.modules" if kind == "Router" else place
        module_type(f"{place}.{kind}")(folder, marker)
        entries = json.loads((folder / "modules.json").read_text())
        change_json(folder / entries[-1]["path"] / config, **settings)

    return arm


def handed_to_loaders(**arguments: object) -> Payload:
    def arm(folder: Path, marker: Path) -> None:
        put(folder / "modeling_evil.py", module(marker))
        change_json(folder / "sentence_bert_config.json", **arguments)

    return arm


def module_elsewhere(folder: Path, marker: Path) -> None:
    entries = json.loads((folder / "modules.json").read_text())
    shutil.copytree(folder / entries[1]["path"], folder.parent / "elsewhere")
    entries[1]["path"] = "../elsewhere"
    (folder / "modules.json").write_text(json.dumps(entries))


def module_with_pickled_weights(folder: Path, marker: Path) -> None:
    """A safetensors file of another name must not make the pickle acceptable."""
    module_with("Dense", "config.json", in_features=24, out_features=24, bias=True)(folder, marker)
    place = folder / json.loads((folder / "modules.json").read_text())[-1]["path"]
    put(place / "pytorch_model.bin", torch_file(marker))
    shutil.copy(folder / "model.safetensors", place / "other.safetensors")


SENTENCE_TRANSFORMER: dict[str, Payload] = {
    "a local class": module_type("evil.Evil"),
    "os.system": module_type("os.system"),
    "exec": module_type("builtins.exec"),
    "no class": module_type("sentence_transformers.util.import_from_string"),
    "a module elsewhere": module_elsewhere,
    "pickled weights": module_with_pickled_weights,
    "routes": module_with(
        "Router", "router_config.json", types={"a": "evil.Evil"}, structure={"a": ["a"]}, parameters={}
    ),
    "a tokenizer class": module_with("WordEmbeddings", "wordembedding_config.json", tokenizer_class="evil.Evil"),
    "remote code by arguments": handed_to_loaders(model_args={"trust_remote_code": True}),
    "kernels by arguments": handed_to_loaders(model_kwargs={"attn_implementation": "evil/kernels"}),
    "a folder by arguments": handed_to_loaders(config_args={"subfolder": "../elsewhere"}),
    "a file by arguments": handed_to_loaders(tokenizer_args={"tokenizer_file": "/etc/passwd"}),
    "a dense layer without end": module_with("Dense", "config.json", in_features=10**9, out_features=10**9),
}


@pytest.mark.usefixtures("findable")
@pytest.mark.parametrize("name", SENTENCE_TRANSFORMER)
def test_a_sentence_transformer_that_names_code_is_refused(
    tmp_path: Path, tiny_teacher: Path, marker: Path, name: str
) -> None:
    shutil.copytree(tiny_teacher, tmp_path / "model")
    SENTENCE_TRANSFORMER[name](tmp_path / "model", marker)
    with pytest.raises(ModelFileError) as caught:
        load_encoder(EncoderConfig(model=str(tmp_path / "model")))
    assert str(tmp_path / "model") in str(caught.value)


@pytest.mark.usefixtures("findable")
def test_an_activation_that_is_foreign_is_not_imported(tmp_path: Path, tiny_teacher: Path, marker: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    stored = SentenceTransformer(str(tiny_teacher), device="cpu")
    stored.append(Dense(24, 24))
    stored.save(str(tmp_path / "model"), create_model_card=False)
    [place] = (tmp_path / "model").glob("*_Dense")
    change_json(place / "config.json", activation_function="evil.Evil")
    with pytest.raises(ModelFileError, match=r"activation_function is 'evil\.Evil'"):
        load_encoder(EncoderConfig(model=str(tmp_path / "model")))


def test_a_matrix_of_objects_is_refused(tmp_path: Path, marker: Path, fresh_cache: Path) -> None:
    matrix, ids = tmp_path / "m.npy", tmp_path / "ids.txt"
    ids.write_text("a\n")
    for content in (object_array(marker), raw_pickle(marker), torch_file(marker)):
        put(matrix, content)
        for read in (lambda: import_matrix(matrix, ids, tmp_path / "out"), lambda: open_features(matrix, ids)):
            with pytest.raises(DalrError, match=str(matrix)):
                read()


def test_a_feature_store_opens_no_pickle(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "store"
    write_store(folder, ids=["a"], blocks=[np.ones((1, 4))], source={}, origin="x")
    put(folder / "vectors.npy", object_array(marker))
    put(folder / "optimizer.pt", torch_file(marker))
    assert len(open_store(folder)) == 1
    size = (folder / "vectors-00000.safetensors").stat().st_size
    put(folder / "vectors-00000.safetensors", raw_pickle(marker).ljust(size, b"\0"))
    with pytest.raises(DalrError, match=r"vectors-00000\.safetensors"):
        open_store(folder).read(np.array([0]))


def test_a_token_stream_of_objects_in_the_cache_is_made_again(
    fresh_cache: Path, tiny_bert: Path, marker: Path
) -> None:
    """Sealed or not: whoever can write into the cache can seal."""
    from transformers import AutoTokenizer

    from dalr.data.tokens import tokenised

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    stream = tokenised(["a dog"], tokenizer, max_tokens=8)
    [entry] = (fresh_cache / "tokens").iterdir()

    def fill(temporary: Path) -> None:
        for name in ("tokens.npy", "offsets.npy"):
            put(temporary / name, object_array(marker))

    write_sealed(entry, format="dalr-tokens", version=1, metadata={"truncated": 0}, fill=fill)
    again = tokenised(["a dog"], tokenizer, max_tokens=8)
    assert again.tokens.tolist() == stream.tokens.tolist()


def test_a_checkpoint_with_pickles_in_it_is_read_without_them(
    tmp_path: Path, tiny_teacher: Path, marker: Path
) -> None:
    def fill(temporary: Path) -> None:
        shutil.copytree(tiny_teacher, temporary / "model")
        module_type("evil.Evil")(temporary / "model", marker)
        pickles_beside(temporary, marker)
        pickles_beside(temporary / "model", marker)

    metadata = {"step": 1, "score": None}
    write_sealed(tmp_path / "step-1", format="dalr-checkpoint", version=1, metadata=metadata, fill=fill)
    checkpoint = read_checkpoint(tmp_path / "step-1")
    with pytest.raises(ModelFileError, match=r"evil\.Evil"):
        load_encoder(EncoderConfig(model=str(checkpoint.folder / "model")))


@pytest.mark.parametrize("place", ["name", "student", "objective", "extends", "data", "new key"])
def test_tags_in_a_recipe_are_refused_with_their_line(
    tmp_path: Path, tiny_data: TinyData, tiny_bert: Path, marker: Path, place: str
) -> None:
    tree = recipe_tree(tiny_data, tiny_bert) | {place: "PAYLOAD"}
    text = yaml.safe_dump(tree, sort_keys=False).replace("PAYLOAD", yaml_tag(marker))
    (tmp_path / "recipe.yaml").write_text(text)
    line = text.split("!!python")[0].count("\n") + 1
    with pytest.raises(DalrError, match=rf"recipe\.yaml:{line}: tags .* write the value out"):
        load_recipe(str(tmp_path / "recipe.yaml"))


@pytest.mark.usefixtures("findable")
def test_a_data_set_folder_with_a_loading_script_is_refused(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "evil"
    put(folder / "evil.py", module(marker))
    put(folder / "data.jsonl", '{"image": "a.jpg", "caption": "a dog"}\n')
    change_json(folder / "dataset_infos.json", default={"builder_name": "evil"})
    for format in (None, "datasets"):
        problems: list[Problem] = []
        read_pairs(folder, problems, {}, reading=Reading(format=format))
        assert problems
        assert all(str(folder) in str(problem) for problem in problems)


@pytest.mark.usefixtures("findable")
def test_a_saved_data_set_with_foreign_features_is_refused(tmp_path: Path, marker: Path) -> None:
    from datasets import Dataset

    folder = tmp_path / "saved"
    Dataset.from_dict({"image": ["a.jpg"], "caption": ["a dog"]}).save_to_disk(str(folder))
    put(folder / "evil.py", module(marker))
    change_json(folder / "dataset_info.json", features={"image": {"_type": "evil.Evil"}}, builder_name="evil")
    change_json(folder / "state.json", _format_type="evil.Evil")
    problems: list[Problem] = []
    read_pairs(folder, problems, {})
    assert str(folder) in str(problems[0])


def test_a_pickled_type_in_parquet_is_not_unpickled(tmp_path: Path, marker: Path) -> None:
    """Older versions of Arrow unpickled a type of this name from a file's schema."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": raw_pickle(marker)}
    schema = pa.schema([pa.field("image", pa.string(), metadata=metadata), pa.field("caption", pa.string())])
    parquet.write_table(pa.table([["a.jpg"], ["a dog"]], schema=schema), tmp_path / "p.parquet")
    problems: list[Problem] = []
    found = read_pairs(tmp_path / "p.parquet", problems, {})
    assert found.images == ("a.jpg",) or problems


class TestCommands:
    """The same through the command line: exit codes, and nothing left behind."""

    @pytest.fixture
    def hostile(self, tmp_path: Path, tiny_teacher: Path, marker: Path) -> Path:
        shutil.copytree(tiny_teacher, tmp_path / "hostile")
        module_type("evil.Evil")(tmp_path / "hostile", marker)
        return tmp_path / "hostile"

    @pytest.mark.usefixtures("findable")
    def test_train(self, toys: Toys, tmp_path: Path, hostile: Path, cli: Callable[..., Outcome]) -> None:
        sections = {"student": {"model": str(hostile)}}, {"teachers": [{"model": str(hostile)}]}
        for number, section in enumerate(sections):
            if "teachers" in section:
                section |= {"objective": {"infonce": {}, "list_net": {}}}
            done = cli("train", toys.recipe(tmp_path, **section), "--out", tmp_path / f"run-{number}", "-q")
            assert done.code == 4, done.err
            assert str(hostile) in done.err

    @pytest.mark.usefixtures("findable")
    def test_evaluate_and_encode(
        self, tiny_data: TinyData, tmp_path: Path, hostile: Path, cli: Callable[..., Outcome]
    ) -> None:
        done = cli("evaluate", hostile, "--data", tmp_path, "--tasks", "STS12")
        assert done.code in (3, 4), done.err
        done = cli("features", "text", "--model", hostile, "--text", tiny_data.text, "--out", tmp_path / "store")
        assert done.code == 4, done.err
        assert str(hostile) in done.err
        assert not (tmp_path / "store").exists()

    def test_import(self, tmp_path: Path, marker: Path, checkpoint: Path, cli: Callable[..., Outcome]) -> None:
        shutil.copytree(checkpoint, tmp_path / "checkpoint")
        put(tmp_path / "checkpoint" / "pytorch_model.bin", torch_file(marker))
        done = cli("import", tmp_path / "checkpoint", "--out", tmp_path / "model")
        assert done.code == 4
        assert str(tmp_path / "checkpoint" / "pytorch_model.bin") in done.err
        assert "ask its owner for model.safetensors" in done.err
        assert "weights_only" not in done.err, "no advice to load it anyway"
        assert not (tmp_path / "model").exists()

    def test_check_and_show(
        self, tmp_path: Path, tiny_data: TinyData, tiny_bert: Path, marker: Path, cli: Callable[..., Outcome]
    ) -> None:
        text = yaml.safe_dump(recipe_tree(tiny_data, tiny_bert)) + f"seed: {yaml_tag(marker)}\n"
        (tmp_path / "recipe.yaml").write_text(text)
        for command in (("check",), ("train",), ("recipe", "show", "--resolved")):
            assert cli(*command, tmp_path / "recipe.yaml").code == 2
