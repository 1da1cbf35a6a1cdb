"""Every key of a recipe says what it means, on the command line and in the documentation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import dalr
from dalr.errors import ConfigError
from dalr.losses import registry
from dalr.recipe.explain import explain, recipe_keys


@pytest.fixture
def own_term() -> Iterator[None]:
    @dalr.register_term("pull_test")
    class Pull(dalr.Term):
        """Pull the two views together."""

        power: int = 1
        """Exponent of the distance."""

    yield
    del registry._registered["pull_test"]


def test_no_key_is_without_a_meaning() -> None:
    keys = recipe_keys()
    assert len(keys) > 120
    assert [key.name for key in keys if len(key.meaning.split()) < 3] == []


def test_no_meaning_uses_the_words_of_the_source_or_points_to_files_that_do_not_ship() -> None:
    found = [
        key.name for key in recipe_keys() for word in ("None", ".py", "[ours]", "shared/") if word in key.meaning
    ]
    assert found == []


def test_a_key_shows_its_type_its_default_and_its_meaning() -> None:
    text = explain("objective.grounding.threshold_quantile")
    assert text.startswith("objective.grounding.threshold_quantile\n")
    assert "type: number > 0 and < 1 or null" in text
    assert "default: null" in text
    assert "false negatives" in text


def test_the_last_part_of_a_name_is_enough_and_alike_keys_are_shown_once() -> None:
    text = explain("margin_form")
    assert "objective.infonce.margin_form\nobjective.grounding.margin_form" in text
    assert text.count("discontinuous") == 1


def test_a_section_lists_its_keys() -> None:
    text = explain("training.schedule")
    assert "keys:" in text
    assert "repeat_images" in text
    assert "groups.text" not in text


def test_closed_sets_limits_and_lists_are_spelled_out() -> None:
    kinds = {key.name: key.kind for key in recipe_keys()}
    assert kinds["data.on_empty"] == "error | drop"
    assert kinds["data.columns.separator"] == "',' | ';' | '|' | ':' or null"
    assert kinds["teachers"] == "list of section"
    assert kinds["student.dropout"] == "number ≥ 0 and < 1 or null"
    assert kinds["objective.cross_modal_alignment.temperature_bounds"] == "list of 2 values"


def test_keys_of_a_list_of_sections_and_of_registered_terms_are_there(own_term: None) -> None:
    assert "α_k" in explain("teachers.weight")
    assert "α_k" in explain("teachers[].weight")
    assert "Exponent of the distance." in explain("objective.pull_test.power")


def test_an_unknown_key_is_refused_with_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"threshold_quantil.*threshold_quantile"):
        explain("threshold_quantil")


def test_explaining_needs_no_torch() -> None:
    code = (
        "import sys; from dalr.recipe.explain import recipe_keys; recipe_keys(); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
