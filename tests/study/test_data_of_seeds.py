"""Each seed may have data of its own: `${seed}` in what a study changes and in what it scores on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from pretend import QUIET, Bench, make_bench

from dalr.errors import ConfigError, DataError
from dalr.study import load_study, make_plan, run_study
from dalr.study.config import EvaluateConfig
from dalr.study.names import mentions_seed, with_seed
from dalr.study.scores import Scorers
from tiny import Toys


@pytest.fixture
def bench(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(toys, tmp_path, monkeypatch)


def write_pairs(folder: Path, seed: int, count: int = 8) -> Path:
    random = np.random.default_rng(seed)
    for group in ("new", "plain"):
        (folder / group).mkdir(parents=True, exist_ok=True)
        rows = [f"{random.uniform(0, 5):.2f}\tdog {group} {n}\tcat {n} {seed}\n" for n in range(count)]
        (folder / group / "pairs.tsv").write_text("".join(rows))
    return folder


def test_the_seed_is_put_into_every_value() -> None:
    value = {"a": ["x/seed-${seed}/y", 3], "b": ("${seed}", None), "c": "${prepared:t} ${HOME}"}
    assert with_seed(value, 7) == {"a": ["x/seed-7/y", 3], "b": ("7", None), "c": "${prepared:t} ${HOME}"}
    assert mentions_seed(value)
    assert not mentions_seed(value["c"])


def test_runs_read_the_data_of_their_seed(bench: Bench) -> None:
    bench.tree["overrides"] = {"data.text": "text-${seed}.txt"}
    bench.tree["seeds"], bench.tree["tune_seed"] = [1, 2], 5
    plan = make_plan(load_study(bench.write()), bench.out)
    beside = Path(bench.write()).parent
    texts = {run.recipe.data.text for runs in plan.trials.values() for run in runs}
    assert texts == {str(beside / "text-5.txt")}
    finals = plan.finals("plain", plan.trials["plain"][0])
    assert [run.recipe.data.text for run in finals] == [str(beside / f"text-{seed}.txt") for seed in (1, 2)]


def test_a_prepared_run_has_no_seed_to_put_in(bench: Bench) -> None:
    bench.tree["overrides"] = {"data.text": "text-${seed}.txt"}
    bench.tree["prepare"] = {"teacher": {"recipe": "recipe.yaml"}}
    with pytest.raises(ConfigError, match=r"study.yaml:\d+: overrides.*made once for all seeds"):
        make_plan(load_study(bench.write()), bench.out)


def test_what_is_scored_on_is_that_of_the_seed() -> None:
    config = EvaluateConfig(
        data="senteval-${seed}", tasks=(), graded_pairs={"own": "pairs/${seed}"}, exclude_overlap="${seed}.txt"
    )
    found = config.at(3)
    assert (found.data, found.exclude_overlap) == ("senteval-3", "3.txt")
    assert dict(found.graded_pairs) == {"own": "pairs/3"}
    scorers = Scorers(config, QUIET)
    assert scorers.at(3) is scorers.at(3)
    assert scorers.at(3) is not scorers.at(4)
    same = Scorers(EvaluateConfig(data="senteval"), QUIET)
    assert same.at(3) is same.at(4), "data of all seeds is read once"


def test_missing_pairs_of_any_seed_are_found_before_training(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs-0", 0)
    config = EvaluateConfig(tasks=(), graded_pairs={"own": str(tmp_path / "pairs-${seed}")})
    Scorers(config, QUIET).require_data([0])
    with pytest.raises(DataError, match="pairs-1"):
        Scorers(config, QUIET).require_data([0, 1])


def test_names_of_graded_pairs_are_checked_with_the_study(bench: Bench) -> None:
    bench.tree["evaluate"] = {"tasks": [], "graded_pairs": {"sts": "pairs"}}
    with pytest.raises(ConfigError, match=r"evaluate.graded_pairs.sts: 'sts' is a task of its own"):
        load_study(bench.write())


def study(toys: Toys, folder: Path) -> str:
    tree = {
        "name": "toy",
        "seeds": [0, 1],
        "select_by": "tsv",
        "overrides": {
            "training.max_steps": 2,
            "validation": {"kind": "tsv", "data": str(folder / "validation-${seed}")},
        },
        "methods": {name: {"recipe": str(toys.recipe(folder))} for name in ("one", "other")},
        "evaluate": {"tasks": [], "graded_pairs": {"own": str(folder / "test-${seed}")}},
        "compare": [["one", "other"]],
    }
    tree["methods"]["other"]["overrides"] = {"training.learning_rate": 1e-2}  # type: ignore[index]
    (folder / "study.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(folder / "study.yaml")


def test_a_study_selects_scores_compares_and_shows_graded_pairs(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dalr.study import scores

    for seed in (0, 1):
        write_pairs(tmp_path / f"validation-{seed}", seed)
        write_pairs(tmp_path / f"test-{seed}", 10 + seed)
    path, out = study(toys, tmp_path), tmp_path / "out"
    result = run_study(load_study(path), out=out, console=QUIET)
    assert result.graded == ("own",)
    for method in result.methods.values():
        assert [set(seed.scores) for seed in method.seeds] == [
            {"dev", "own", "own/new", "own/plain", "own/new/pairs", "own/plain/pairs"}
        ] * 2
        first = method.seeds[0].scores
        assert first["own"] == pytest.approx((first["own/new"] + first["own/plain"]) / 2)
    assert {each.score for each in result.differences} >= {"own", "own/new", "dev"}
    page = (out / "study.md").read_text()
    assert "Graded pairs, own" in page
    assert "own: not enough seeds for a verdict (2; it takes 3 or more)." in page

    examined: list[str] = []
    evaluate_one = scores.evaluate_one

    def counted(place: object, loaded: object, request: object) -> object:
        examined.append(str(place.name))  # type: ignore[attr-defined]
        return evaluate_one(place, loaded, request)  # type: ignore[arg-type]

    monkeypatch.setattr(scores, "evaluate_one", counted)
    again = run_study(load_study(path), out=out, console=QUIET)
    assert examined == []
    assert again == result
    write_pairs(tmp_path / "test-1", 99)
    changed = run_study(load_study(path), out=out, console=QUIET)
    assert [Path(name).name for name in examined] == ["seed-1", "seed-1"], "scores of other pairs do not stand"
    assert changed.methods["one"].seeds[0] == result.methods["one"].seeds[0]
    assert changed.methods["one"].seeds[1].scores != result.methods["one"].seeds[1].scores
    shutil.rmtree(out / "runs")
    known = run_study(load_study(path), out=out, console=QUIET)
    assert known.methods["one"].seeds == changed.methods["one"].seeds, "records hold graded pairs"
