"""Every term equals its formula, written as a naive loop: float64 to 1e-9, fp32 to 1e-6, half precision to 1e-2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from loops import LOOPS
from random_inputs import cast, random_inputs
from torch import Tensor

from dalr.losses import TERMS
from dalr.losses.inputs import Inputs

Fields = Mapping[str, Any]

CASES: list[tuple[str, Fields]] = [
    ("infonce", {}),
    ("infonce", {"margin": 0.2}),
    ("infonce", {"mask_same_image": False}),
    ("infonce", {"positives": "same_image"}),
    ("infonce", {"margin": 0.9, "temperature": 0.2}),
    ("grounding", {}),
    ("grounding", {"margin": 0.2}),
    ("grounding", {"margin": 0.2, "soft_margin": False}),
    ("grounding", {"margin": 0.15, "mask_same_image": False}),
    ("grounding", {"margin": 0.15, "clip_text_branch": True}),
    ("grounding", {"margin": 0.15, "clip_text_branch": True, "threshold_quantile": 0.7}),
    ("grounding", {"candidates": 9}),
    ("grounding", {"margin": 0.15, "candidates": 9, "clip_text_branch": True, "threshold_quantile": 0.7}),
    ("consistency", {}),
    ("consistency", {"margin": -0.1, "classifier_weight": 0.5}),
    ("cross_modal_alignment", {}),
    ("cross_modal_alignment", {"soft_label_mix": 0.3}),
    ("cross_modal_alignment", {"soft_label_mix": 1.0}),
    ("cross_modal_alignment", {"target": "clip"}),
    ("cross_modal_alignment", {"target": "clip", "soft_label_mix": 0.3, "text_target_temperature": 0.01}),
    ("cross_modal_alignment", {"text_temperature": 0.45, "image_temperature": 0.3}),
    ("list_mle", {}),
    ("list_mle", {"reduction": "sum"}),
    ("list_mle", {"include_self": True}),
    ("list_mle", {"include_self": True, "reduction": "sum", "epsilon": 1e-7}),
    ("list_net", {}),
    ("list_net", {"teacher_temperature": 0.1}),
    ("consistency_js", {}),
    ("intra_modal_alignment", {}),
    ("intra_modal_alignment", {"temperature": 0.1}),
    ("global_to_local", {}),
]


def name_of(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={setting}" for key, setting in value.items()) or "defaults"
    return str(value)


def smallest_temperature(fields: Fields) -> float:
    """A rounding of 1e-6 in a cosine is one of 1e-6/τ in a score."""
    stated = [value for key, value in fields.items() if key.endswith("temperature")]
    return float(min([0.05, *stated]))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("name", "fields"), CASES, ids=name_of)
def test_a_term_equals_its_formula_in_double_precision(name: str, fields: Fields, seed: int) -> None:
    inputs = random_inputs(seed=seed)
    assert TERMS[name](**fields)(inputs).item() == pytest.approx(LOOPS[name](inputs, **fields), rel=1e-9)


@pytest.mark.parametrize(("name", "fields"), CASES, ids=name_of)
def test_a_term_equals_its_formula_in_single_precision(name: str, fields: Fields) -> None:
    inputs = random_inputs(dtype=torch.float32)
    value = TERMS[name](**fields)(inputs)
    assert value.dtype == torch.float32
    allowed = 1e-6 / smallest_temperature(fields)
    assert value.item() == pytest.approx(LOOPS[name](inputs, **fields), rel=1e-6, abs=allowed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("name", "fields"), CASES, ids=name_of)
def test_half_precision_is_in_the_inputs_and_not_in_the_arithmetic(
    name: str, fields: Fields, dtype: torch.dtype
) -> None:
    """ "fp32 inside": the loop sees the same rounded inputs, so only the arithmetic of the term is measured."""
    inputs = random_inputs(dtype=dtype, noise=0.3)
    assert TERMS[name](**fields)(inputs).item() == pytest.approx(LOOPS[name](inputs, **fields), rel=1e-2)


@pytest.mark.parametrize(("name", "fields"), CASES, ids=name_of)
def test_autocast_around_a_term_changes_nothing(name: str, fields: Fields) -> None:
    """ "fp32 inside, whatever the autocast"."""
    inputs = random_inputs(dtype=torch.float32)
    plain = TERMS[name](**fields)(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = TERMS[name](**fields)(inputs)
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(plain.item(), rel=1e-6)


def tied_inputs(order: list[int]) -> Inputs:
    """Teachers whose cosines are exactly 0 or 1, so that whole lists are ties."""
    first, second = torch.eye(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    inputs = random_inputs(6)
    teachers = (first[torch.tensor([0, 0, 1, 1, 2, 2])], second[torch.tensor([0, 0, 0, 1, 1, 1])])
    return replace(inputs, teachers=teachers, tie_order=torch.tensor(order))


@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 5, 0, 3, 1, 4]], ids=str)
def test_ties_of_the_teachers_are_broken_in_the_order_that_the_views_give(
    order: list[int], include_self: bool
) -> None:
    inputs = tied_inputs(order)
    value = TERMS["list_mle"](include_self=include_self)(inputs).item()
    assert value == pytest.approx(LOOPS["list_mle"](inputs, include_self=include_self), rel=1e-9)


def test_the_order_among_ties_matters() -> None:
    first, second = (
        TERMS["list_mle"](reduction="sum")(tied_inputs(order)) for order in ([0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0])
    )
    assert first != second


def test_a_list_is_averaged_over_the_rows_that_are_in_it() -> None:
    """Without self there are n − 1."""
    inputs = random_inputs(6)
    total, mean = (TERMS["list_mle"](reduction=reduction)(inputs) for reduction in ("sum", "mean"))
    assert (total / mean).item() == pytest.approx(5)


def test_teachers_enter_by_the_weight_of_their_cosines_whatever_their_dims() -> None:
    """Scaling the vectors of a teacher changes nothing; the weights do."""
    inputs = random_inputs()
    first, second = inputs.teachers
    assert first.shape[1] != second.shape[1]
    term = TERMS["intra_modal_alignment"]()
    scaled = replace(inputs, teachers=(100 * first, second))
    swapped = replace(inputs, teacher_weights=(0.67, 0.33))
    assert term(scaled).item() == pytest.approx(term(inputs).item(), rel=1e-12)
    assert term(swapped).item() == pytest.approx(LOOPS["intra_modal_alignment"](swapped), rel=1e-9)
    assert abs(term(swapped) - term(inputs)) > 1e-3


def test_a_sentence_without_real_tokens_counts_for_nothing() -> None:
    inputs = random_inputs()

    def emptied(mask: Tensor) -> Tensor:
        return mask & (torch.arange(len(mask)) != 3)[:, None]

    tokens = tuple(replace(teacher, mask=emptied(teacher.mask)) for teacher in inputs.teacher_tokens)
    inputs = replace(inputs, teacher_tokens=tokens)
    assert TERMS["global_to_local"]()(inputs).item() == pytest.approx(LOOPS["global_to_local"](inputs), rel=1e-9)


def test_what_stands_in_the_padding_changes_nothing() -> None:
    inputs = random_inputs()
    noisy = tuple(
        replace(teacher, states=teacher.states.masked_fill(~teacher.mask[..., None], 1e3))
        for teacher in inputs.teacher_tokens
    )
    term = TERMS["global_to_local"]()
    assert term(replace(inputs, teacher_tokens=noisy)) == term(inputs)


def test_the_loops_themselves_see_a_wrong_term() -> None:
    """The comparison has teeth: a changed input changes every loop by far more than is tolerated."""
    inputs, others = random_inputs(seed=0), random_inputs(seed=1)
    assert all(abs(loop(inputs) - loop(others)) > 1e-3 for loop in LOOPS.values())
    assert LOOPS.keys() == TERMS.keys()
    assert {name for name, _ in CASES} == TERMS.keys()
    assert cast(inputs, torch.float32).z_a.dtype == torch.float32
