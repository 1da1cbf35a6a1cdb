"""dalr as a library: terms, data, validation and callbacks from outside the package, by its public names alone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import dalr
from tiny import Outcome, Toys

IMAGES = [f"{number}.jpg" for number in range(12)]
PAIRS = [(image, [f"A dog runs, number {n}.", f"A wet dog, number {n}."]) for n, image in enumerate(IMAGES)]
TEXT = [f"Plain sentence number {number}." for number in range(40)]
FEATURES = np.random.default_rng(0).normal(size=(len(IMAGES), 16)).astype("float32")

PLUGIN = """
import dalr
import torch

@dalr.register_term("pull")
class Pull(dalr.Term):
    power: int = 1

    def value(self, inputs):
        return (1 - torch.nn.functional.cosine_similarity(inputs.h_a, inputs.h_b)).mean() ** self.power
"""


@pytest.fixture(autouse=True)
def no_terms_from_other_tests() -> Iterator[None]:
    from dalr.losses import registry

    before = dict(registry._registered)
    yield
    registry._registered.clear()
    registry._registered.update(before)


def register_pull() -> None:
    @dalr.register_term("pull")
    class Pull(dalr.Term):
        def value(self, inputs: dalr.Inputs) -> torch.Tensor:
            return (1 - torch.nn.functional.cosine_similarity(inputs.h_a, inputs.h_b)).mean()


def recipe(toys: Toys, **overrides: Any) -> dalr.Recipe:
    return dalr.load_recipe(
        "mcse",
        {
            "student": {"model": toys.student, "pooling": "mean"},
            "training": {"batch_size": 4, "log_every": 2},
            "training.max_steps": 6,
            "training.precision": "fp32",
            "validation.every": 3,
            **overrides,
        },
    )


class Seen:
    """A callback that keeps what it is told, and may end the training."""

    def __init__(self, end_at: int | None = None) -> None:
        self.steps: list[tuple[int, float, set[str], dict[str, Any]]] = []
        self.end_at = end_at

    def on_step(self, step: int, losses: Any, metrics: Mapping[str, Any]) -> bool:
        self.steps.append((step, float(losses.total), set(losses.terms), dict(metrics)))
        return step == self.end_at


def train(toys: Toys, out: Path, **options: Any) -> dalr.TrainResult:
    given: dict[str, Any] = {
        "recipe": recipe(toys),
        "pairs": PAIRS,
        "text": TEXT,
        "image_features": FEATURES,
        "image_ids": IMAGES,
        "validation": lambda model: float(np.linalg.norm(model.encode(["A dog runs."]))),
    }
    return dalr.train(**(given | options), out=out)


def test_a_training_on_objects_with_a_term_validation_and_callbacks_of_its_own(toys: Toys, tmp_path: Path) -> None:
    register_pull()
    seen, scores = Seen(), [1.0, 5.0, 2.0]
    result = train(
        toys,
        tmp_path / "run",
        recipe=recipe(toys, **{"objective.pull": {"weight": 0.1}}),
        validation=lambda model: scores.pop(0),
        callbacks=[seen],
    )
    assert (result.steps, result.best_step, result.best_score, result.untrained_score) == (6, 3, 5.0, 1.0)
    assert scores == [], "before training, every 3 steps, and at the end"
    assert [step for step, *_ in seen.steps] == [1, 2, 3, 4, 5, 6]
    assert all({"infonce"} <= terms <= {"infonce", "grounding", "pull"} for _, _, terms, _ in seen.steps)
    assert seen.steps[2][3]["validation"] == {"validation": 5.0}
    assert seen.steps[0][3] == {}, "nothing is written at a step without a log line"
    assert any("pull" in line["terms"] for line in result.metrics if "terms" in line), "logged like a built-in term"
    loaded = json.loads((result.run / "run.json").read_text())
    assert loaded["recipe"]["objective"]["pull"] == {"weight": 0.1}
    assert "source of term pull" in loaded["identity"]
    assert loaded["recipe"]["data"]["pairs"] == "(in memory)"


def test_a_product_in_memory_is_scored_as_its_folder_is(toys: Toys, tmp_path: Path, shared: Path) -> None:
    from sentence_transformers import SentenceTransformer

    result = train(toys, tmp_path / "run")
    folder = dalr.evaluate(result.model, data=shared / "data" / "senteval", tasks="sts-b-dev")
    memory = dalr.evaluate(
        SentenceTransformer(str(result.model)), data=shared / "data" / "senteval", tasks=["sts-b-dev"]
    )
    assert folder.tasks["sts-b-dev"].spearman == memory.tasks["sts-b-dev"].spearman  # type: ignore[union-attr]


def test_scores_and_metrics_are_tables_where_pandas_is_installed(toys: Toys, tmp_path: Path, shared: Path) -> None:
    pytest.importorskip("pandas")
    result = train(toys, tmp_path / "run")
    frame = dalr.evaluate(result.run, data=shared / "data" / "senteval", tasks="sts-b-dev").to_frame()
    assert frame["task"].tolist() == ["sts-b-dev"]
    assert np.isfinite(frame["spearman"]).all()
    assert {"step", "loss", "terms.infonce", "validation.validation"} <= set(result.metrics.to_frame().columns)


def test_objects_are_the_same_data_as_files(toys: Toys, tmp_path: Path) -> None:
    """Weights and content checksums of a run on objects are those of a run on files of the same content."""
    from safetensors.torch import load_file

    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"image": image, "captions": captions}) + "\n" for image, captions in PAIRS)
    )
    (tmp_path / "text.txt").write_text("".join(f"{line}\n" for line in TEXT))
    np.save(tmp_path / "images.npy", FEATURES)
    (tmp_path / "ids.txt").write_text("".join(f"{image}\n" for image in IMAGES))
    score = {"validation": lambda model: 1.0}
    objects = train(toys, tmp_path / "objects", **score)
    files = dalr.train(
        recipe(toys),
        pairs=tmp_path / "pairs.jsonl",
        text=tmp_path / "text.txt",
        image_features=tmp_path / "images.npy",
        image_ids=tmp_path / "ids.txt",
        out=tmp_path / "files",
        **score,
    )
    one, other = (load_file(result.model / "model.safetensors") for result in (objects, files))
    assert all(torch.equal(one[name], other[name]) for name in one)
    same = [json.loads((run / "run.json").read_text())["identity"] for run in (objects.run, files.run)]
    assert same[0]["captions"] == same[1]["captions"]
    assert same[0]["text"] == same[1]["text"]


def test_mappings_a_data_set_and_captions_one_by_one_are_the_same_pairs(toys: Toys, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"image": image, "captions": captions} for image, captions in PAIRS]
    one_by_one = [(image, caption) for image, captions in PAIRS for caption in captions]
    forms: dict[str, Any] = {
        "mappings": rows,
        "dataset": datasets.Dataset.from_list(rows),
        "one-by-one": one_by_one,
        "generator": (pair for pair in PAIRS),
    }
    found = {
        name: json.loads((train(toys, tmp_path / name, pairs=form).run / "run.json").read_text())["identity"]
        for name, form in forms.items()
    }
    assert len({identity["captions"] for identity in found.values()}) == 1


def test_a_callback_ends_a_training_which_keeps_its_best_weights(toys: Toys, tmp_path: Path) -> None:
    ended = train(toys, tmp_path / "ended", callbacks=[Seen(end_at=4)])
    assert (ended.stopped_early_at, ended.steps) == (4, 4)
    assert [line["step"] for line in ended.metrics if "validation" in line] == [0, 3, 4], "scored where it ended"
    assert (ended.model / "modules.json").is_file()


def test_a_callback_ends_a_training_without_validation(toys: Toys, tmp_path: Path) -> None:
    chosen = recipe(toys, validation=None)
    ended = train(toys, tmp_path / "run", recipe=chosen, validation=None, callbacks=[Seen(end_at=2)])
    assert (ended.stopped_early_at, ended.best_step) == (2, 2)


def test_a_run_on_objects_is_resumed_with_the_same_objects_only(toys: Toys, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    class Kill:
        def on_step(self, step: int, losses: Any, metrics: Mapping[str, Any]) -> None:
            if step == 5:
                raise KilledError

    chosen = recipe(toys, **{"training.save_every": 2})
    with pytest.raises(KilledError):
        train(toys, tmp_path / "run", recipe=chosen, callbacks=[Kill()])
    with pytest.raises(dalr.ConfigError, match="captions"):
        train(toys, tmp_path / "run", recipe=chosen, pairs=[*PAIRS[:-1], ("11.jpg", ["Another."])], resume=True)
    resumed = train(toys, tmp_path / "run", recipe=chosen, resume=True)
    assert resumed.metrics == train(toys, tmp_path / "whole", recipe=chosen).metrics


def test_zeros_are_images_that_say_nothing_and_a_single_row_of_them_is_a_mistake(
    toys: Toys, tmp_path: Path
) -> None:
    assert train(toys, tmp_path / "run", image_features=np.zeros_like(FEATURES)).steps == 6
    one = FEATURES.copy()
    one[3] = 0
    with pytest.raises(dalr.DataError, match="row 4: all zero"):
        train(toys, tmp_path / "other", image_features=one)


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"pairs": [("a.jpg",)]}, dalr.DataError, r"pairs\[0\]: expected \(image, caption\)"),
        ({"pairs": [(1, "a")]}, dalr.DataError, r"pairs\[0\]"),
        ({"pairs": [("a.jpg", "")]}, dalr.DataError, "is empty"),
        ({"pairs": []}, dalr.DataError, "no pairs in it"),
        ({"text": ["a", 3]}, dalr.DataError, r"text\[1\]: expected a string, found 3"),
        ({"text": ["a", " "]}, dalr.DataError, r"\(in memory\):2: empty line"),
        ({"image_features": FEATURES[:3]}, dalr.DataError, "3 rows of features, but 12 image_ids"),
        ({"image_features": FEATURES.astype(int)}, dalr.DataError, "expected floating-point numbers"),
        ({"image_features": FEATURES[0]}, dalr.DataError, "expected floating-point numbers"),
        ({"image_features": FEATURES * np.nan}, dalr.DataError, "expected finite numbers"),
        (
            {"image_features": FEATURES[:11], "image_ids": IMAGES[1:]},
            dalr.DataError,
            "no such id among",
        ),
        ({"image_features": None, "image_ids": None}, dalr.ConfigError, "features.image is not set"),
        ({"validation": lambda model: "good"}, dalr.ConfigError, "expected a number"),
    ],
)
def test_wrong_objects_are_named(
    toys: Toys, tmp_path: Path, options: dict[str, Any], error: type[dalr.DalrError], what: str
) -> None:
    with pytest.raises(error, match=what):
        train(toys, tmp_path / "run", **options)


def test_a_callback_without_on_step_is_named() -> None:
    code = "import dalr; dalr.train('simcse', callbacks=[print])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "dalr.errors.ConfigError: callbacks[0]: expected an object with on_step" in found.stderr


def test_a_score_by_a_function_needs_the_function(toys: Toys, tmp_path: Path) -> None:
    chosen = recipe(toys, **{"validation.kind": "function"})
    with pytest.raises(dalr.ConfigError, match="pass validation="):
        train(toys, tmp_path / "run", recipe=chosen, validation=None)


def test_overrides_merge_and_a_recipe_may_be_a_mapping(toys: Toys) -> None:
    made = dalr.load_recipe(
        {"extends": "dalr", "objective": {"intra_modal_alignment": None}, "student": {"model": str(toys.student)}},
        {"objective": {"grounding": {"weight": 0.5}}, "training.learning_rate": 1e-4, "training.report_to": ()},
    )
    shipped = dalr.load_recipe("dalr")
    assert made.objective.term("intra_modal_alignment") is None
    grounding = made.objective.term("grounding")
    assert grounding == shipped.objective.term("grounding").model_copy(update={"weight": 0.5})  # type: ignore[union-attr]
    assert made.training == shipped.training.model_copy(update={"learning_rate": 1e-4})


def test_wrong_overrides_name_their_keys() -> None:
    with pytest.raises(dalr.ConfigError) as caught:
        dalr.load_recipe("simcse", {"training": {"learning_rat": 1e-4}, "seed": "one"})
    assert "overrides['training.learning_rat']" in str(caught.value)
    assert "did you mean 'learning_rate'" in str(caught.value)
    assert "overrides['seed']: seed: expected" in str(caught.value)


def test_a_loaded_recipe_takes_no_overrides(toys: Toys) -> None:
    with pytest.raises(dalr.ConfigError, match="load_recipe"):
        dalr.train(recipe(toys), overrides={"seed": 1})


@pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        ("infonce", None, "is a term of dalr"),
        ("Pull", None, "lower-case letters"),
        ("pull", dict, "expected a subclass of dalr.Term"),
    ],
)
def test_a_term_that_cannot_be_one_is_refused(name: str, kind: type | None, what: str) -> None:
    class Fine(dalr.Term):
        pass

    with pytest.raises(dalr.ConfigError, match=what):
        dalr.register_term(name)(kind or Fine)  # type: ignore[type-var]


def test_an_unknown_term_says_which_option_to_use() -> None:
    with pytest.raises(dalr.ConfigError, match="--plugin FILE"):
        dalr.load_recipe("mcse", {"objective.pull": {"weight": 0.1}})


def test_the_fields_of_a_term_from_outside_are_checked_with_the_others() -> None:
    @dalr.register_term("pull")
    class Pull(dalr.Term):
        power: int = 1

    with pytest.raises(dalr.ConfigError) as caught:
        dalr.load_recipe("mcse", {"objective.pull": {"powr": 2}, "objective.infonce.temperature": -1.0})
    assert "did you mean 'power'" in str(caught.value)
    assert "infonce.temperature" in str(caught.value)


def test_a_term_from_an_entry_point_is_loaded_when_a_recipe_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[dalr.terms]\nfar_pull = outside_terms:Pull\nbroken = outside_terms:No\n"
    )
    (tmp_path / "outside_terms.py").write_text(
        "import dalr\nclass Pull(dalr.Term):\n    def value(self, inputs):\n        return inputs.h_a.mean()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = dalr.load_recipe("mcse", {"objective.far_pull": {"weight": 0.1}})
    assert type(made.objective.term("far_pull")).__module__ == "outside_terms"
    with pytest.raises(dalr.ConfigError, match=r"entry point dalr\.terms: broken"):
        dalr.load_recipe("mcse", {"objective.broken": {}})


def test_the_objective_alone_derives_z_and_the_order_among_ties() -> None:
    from dalr.losses import InfoNCE, ListMLE, Objective

    objective = Objective(infonce=InfoNCE(), list_mle=ListMLE(weight=0.5))
    h_a, h_b = torch.randn(2, 8, 16)
    teacher = torch.ones(8, 4)  # nothing but ties
    found = [objective(dalr.Inputs(h_a, h_b, teachers=(teacher,), seed=seed), "text").total for seed in (0, 0, 1)]
    assert found[0] == found[1] or "list_mle" not in objective.model_dump()
    pair = [objective(dalr.Inputs(h_a, h_b, teachers=(teacher,), seed=seed), "pair").total for seed in (0, 0, 1)]
    assert pair[0] == pair[1] != pair[2]
    assert torch.equal(dalr.Inputs(h_a, h_b).z_a, h_a)


# Through the command line


def test_a_plugin_term_goes_through_every_command(toys: Toys, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    plugin = tmp_path / "my_terms.py"
    plugin.write_text(PLUGIN)
    path = toys.recipe(tmp_path, objective={"infonce": {}, "pull": {"weight": 0.1, "power": 2}})
    option = ("--plugin", str(plugin))
    refused = cli("check", str(path))
    assert refused.code == 2
    assert "--plugin FILE" in refused.err
    assert cli("check", str(path), *option).code == 0
    shown = cli("recipe", "show", str(path), "--resolved", *option)
    assert "power: 2" in shown.out
    trained = cli("train", str(path), "--out", str(tmp_path / "run"), *option)
    assert trained.code == 0, trained.err
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"pull"' in log
    wrong = cli("check", str(path), "-s", "objective.pull.powr=2", *option)
    assert "did you mean 'power'" in wrong.err


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "no such file"),
        ("import no_such_module_anywhere", "failed when it was imported"),
        ("1/0", "ZeroDivision"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(
    tmp_path: Path, cli: Callable[..., Outcome], content: str | None, what: str
) -> None:
    plugin = tmp_path / f"broken_{what[:2].strip()}.py"
    if content is not None:
        plugin.write_text(content)
    found = cli("recipe", "show", "mcse", "--resolved", "--plugin", str(plugin))
    assert found.code == 2
    assert f"--plugin {plugin}" in found.err
    assert what in found.err


def test_another_source_of_a_term_is_another_run(toys: Toys, tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    from dalr.losses.registry import source_sha256, term_class
    from dalr.recipe.plugins import load_plugins

    found = []
    for name, content in (("one", PLUGIN), ("two", PLUGIN + "# changed\n")):
        (tmp_path / f"{name}.py").write_text(content)
        load_plugins([str(tmp_path / f"{name}.py")])
        kind = term_class("pull")
        assert kind is not None
        found.append(source_sha256(kind))
    assert found[0] != found[1]
