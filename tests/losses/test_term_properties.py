"""What holds for every term whatever its numbers: gradients, degenerate batches, symmetries, bounds, the sum."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from random_inputs import (
    STUDENT_SIDE,
    cast,
    equal_dims,
    mapped,
    permuted,
    random_inputs,
    rotated,
    tensors_of,
    with_gradients,
)
from torch import Tensor

from dalr.losses import TERMS, Need, Objective, Term
from dalr.losses import functional as f
from dalr.losses.inputs import Inputs
from dalr.models.config import HeadsConfig
from dalr.models.heads import Heads

Fields = Mapping[str, Any]

JUMP = {"margin": 0.18, "margin_form": "jump"}
RAW = {"space": "raw", "views": "first", "logit_temperature": 0.05, "teacher_target": "mean_vector"}
STATES = {"mix": "states", "token_axis": "token", "normalize_sentence": False}
RELEASED_LIST = {"include_self": True, "reduction": "sum", "epsilon": 1e-7}
THRESHOLD = {"clip_text_branch": True, "threshold_quantile": 0.6}

CASES: dict[str, tuple[str, Fields]] = {
    "infonce": ("infonce", {}),
    "infonce-margin": ("infonce", {"margin": 0.2}),
    "infonce-same-image": ("infonce", {"positives": "same_image"}),
    "infonce-jump": ("infonce", JUMP),
    "grounding": ("grounding", {}),
    "grounding-soft-margin": ("grounding", {"margin": 0.2}),
    "grounding-hard-margin": ("grounding", {"margin": 0.2, "soft_margin": False}),
    "grounding-candidates": ("grounding", {"margin": 0.2, "candidates": 9}),
    "grounding-jump": ("grounding", {**JUMP, "mask_same_image": False}),
    "grounding-two-branches": ("grounding", {"margin": 0.15, **THRESHOLD}),
    "consistency": ("consistency", {}),
    "consistency-classifier": ("consistency", {"margin": -0.3, "classifier_weight": 0.5}),
    "consistency-roll": ("consistency", {"unmatched": "roll", "roll": 1}),
    "cross_modal_alignment": ("cross_modal_alignment", {}),
    "cross_modal_alignment-mixed": ("cross_modal_alignment", {"soft_label_mix": 0.3, "margin": 0.1}),
    "cross_modal_alignment-clip": ("cross_modal_alignment", {"target": "clip", "text_target_temperature": 0.05}),
    "cross_modal_alignment-learned": ("cross_modal_alignment", {"learn_temperature": True}),
    "cross_modal_alignment-release": ("cross_modal_alignment", {**RAW, **JUMP}),
    "list_mle": ("list_mle", {}),
    "list_mle-release": ("list_mle", {**RELEASED_LIST, **JUMP}),
    "list_net": ("list_net", {}),
    "list_net-self": ("list_net", {"include_self": True, "margin": 0.2}),
    "consistency_js": ("consistency_js", {}),
    "consistency_js-self": ("consistency_js", {"include_self": True}),
    "intra_modal_alignment": ("intra_modal_alignment", {}),
    "intra_modal_alignment-margin": ("intra_modal_alignment", {"margin": 0.2, "learn_temperature": True}),
    "intra_modal_alignment-release": ("intra_modal_alignment", {**JUMP, "teacher_target": "mean_vector"}),
    "global_to_local": ("global_to_local", {}),
    "global_to_local-release": ("global_to_local", STATES),
}
READ_FOR: Mapping[Need, tuple[str, ...]] = {
    Need.IMAGE: ("image", "same_image", "unmatched"),
    Need.CANDIDATES: ("candidates", "candidates_grounded", "own_candidate"),
    Need.CLIP_TEXT: ("clip_text",),
    Need.CLIP_TEXT_GROUNDING: ("clip_text_grounded",),
    Need.GROUNDING: ("s_a", "s_b", "image_grounded"),
    Need.ALIGNERS: ("text_aligned", "image_aligned"),
    Need.MATCH_CLASSIFIER: ("match_logits",),
    Need.TEACHERS: ("teachers", "teacher_weights"),
    Need.TEACHER_TOKENS: ("teacher_tokens",),
}
"""The fields behind each need, with those that say how its rows belong together."""
every_case = pytest.mark.parametrize("case", CASES)


def term_of(case: str) -> Term:
    name, fields = CASES[case]
    return TERMS[name](**fields)


def made(n: int = 6, **options: Any) -> Inputs:
    """Inputs that fit every form of every term."""
    return equal_dims(random_inputs(n, **options))


def gradients(value: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradient by leaf; a leaf that the value does not depend on has a gradient of zero."""
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def test_the_cases_cover_every_term() -> None:
    assert {name for name, _ in CASES.values()} == TERMS.keys()


# Gradients


@every_case
def test_the_gradient_is_the_derivative_of_the_value(case: str) -> None:
    term, inputs = term_of(case), made(4, seed=2)
    detached = {Need.ALIGNERS} if "mixed" in case else set()
    read = ["z_a", "z_b", *(name for need in term.needs - detached for name in READ_FOR[need])]
    names = [name for name in read if name in STUDENT_SIDE]

    def value(*tensors: Tensor) -> Tensor:
        return term(replace(inputs, **dict(zip(names, tensors, strict=True))))

    leaves = tuple(getattr(inputs, name).clone().requires_grad_() for name in names)
    assert torch.autograd.gradcheck(value, leaves, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_the_gradient_of_the_released_list_includes_the_maximum_that_it_subtracts() -> None:
    """Where ε outweighs the tail, log(Σ exp(S − m) + ε) − (S − m) depends on m."""
    scores = torch.tensor([[20.0, 0.0, -3.0], [-2.0, 18.0, 1.0]], dtype=torch.float64, requires_grad=True)
    ranks = torch.tensor([[0, 1, 2], [1, 2, 0]])
    assert torch.autograd.gradcheck(
        lambda student: f.list_mle(student, ranks, mean_over_list=False, epsilon=1e-7), (scores,)
    )


def test_the_consistency_similarity_softens_targets_without_being_trained_by_them() -> None:
    inputs, leaves = with_gradients(made())
    term = TERMS["cross_modal_alignment"](soft_label_mix=0.3)
    found = gradients(term(inputs), leaves)
    assert not found["text_aligned"].any()
    assert not found["image_aligned"].any()
    assert found["s_a"].any()
    changed = replace(inputs, text_aligned=made(seed=5).text_aligned)
    assert term(changed) != term(inputs)


# Degenerate batches


def identical_rows(inputs: Inputs) -> Inputs:
    """Every row is row 0, in every space; the two views still differ."""
    return mapped(inputs, lambda _, t: t[:1].expand_as(t).clone() if t.ndim else t)


def zero_vectors(inputs: Inputs) -> Inputs:
    return mapped(inputs, lambda _, t: torch.zeros_like(t) if t.ndim else t)


def one_zero_row(inputs: Inputs) -> Inputs:
    def change(_: str, tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        if tensor.ndim:
            changed[0] = 0
        return changed

    return mapped(inputs, change)


def dropout_off(inputs: Inputs) -> Inputs:
    """Both views are equal, so that every diagonal cosine is 1."""
    return replace(inputs, h_b=inputs.h_a, z_b=inputs.z_a, s_b=inputs.s_a)


def all_duplicates(inputs: Inputs) -> Inputs:
    """One caption of one image n times, without dropout."""
    same = torch.ones_like(inputs.same_image)
    return replace(dropout_off(identical_rows(inputs)), same_image=same, unmatched=None, match_logits=None)


def cosines_of_one_and_minus_one(inputs: Inputs) -> Inputs:
    """All rows lie on one line through the origin, in every space, so that no cosine is inside (−1, 1)."""

    def change(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim < 2 or name == "match_logits":
            return tensor
        signs = torch.tensor([1.0, -1.0]).repeat(len(tensor))[: len(tensor)].to(tensor)
        return tensor[:1].expand_as(tensor) * signs.view(-1, *[1] * (tensor.ndim - 1))

    line = mapped(inputs, change)
    return replace(dropout_off(line), image_grounded=line.s_a, clip_text_grounded=line.s_a)


def batch_of(n: int) -> Callable[[Inputs], Inputs]:
    def smaller(inputs: Inputs) -> Inputs:
        return cast(made(n), inputs.z_a.dtype)

    smaller.__name__ = f"batch_of_{n}"
    return smaller


DEGENERATE = (
    identical_rows,
    zero_vectors,
    one_zero_row,
    dropout_off,
    all_duplicates,
    cosines_of_one_and_minus_one,
    batch_of(1),
    batch_of(2),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("degenerate", DEGENERATE, ids=lambda change: change.__name__)
@every_case
def test_value_and_gradient_are_finite(
    case: str, degenerate: Callable[[Inputs], Inputs], dtype: torch.dtype
) -> None:
    inputs, leaves = with_gradients(degenerate(made(dtype=dtype)))
    value = term_of(case)(inputs)
    assert value.shape == ()
    assert torch.isfinite(value)
    bad = [name for name, gradient in gradients(value, leaves).items() if not torch.isfinite(gradient).all()]
    assert bad == []


def assert_nothing(term: Term, inputs: Inputs) -> None:
    inputs, leaves = with_gradients(inputs)
    value = term(inputs)
    assert value.item() == 0
    assert all(not gradient.any() for gradient in gradients(value, leaves).values())


@every_case
def test_a_batch_of_one_row_is_nothing_to_compare(case: str) -> None:
    assert_nothing(term_of(case), made(1))


@pytest.mark.parametrize("name", ["list_mle", "list_net", "consistency_js"])
def test_one_other_row_is_no_list_to_rank(name: str) -> None:
    assert_nothing(TERMS[name](), made(2))


def test_without_a_derangement_there_is_no_match_task() -> None:
    inputs = replace(made(), unmatched=None, match_logits=None)
    assert_nothing(TERMS["consistency"](), inputs)
    assert_nothing(TERMS["consistency"](classifier_weight=0.5), inputs)


def test_captions_of_one_image_have_no_negatives_to_ground_against() -> None:
    inputs = made()
    alike = replace(inputs, same_image=torch.ones_like(inputs.same_image))
    assert_nothing(TERMS["grounding"](margin=0.2), alike)
    assert TERMS["infonce"]()(alike) == 0, "and none to be told from"


def test_without_real_tokens_there_is_nothing_to_contrast() -> None:
    inputs = made()
    empty = tuple(replace(tokens, mask=torch.zeros_like(tokens.mask)) for tokens in inputs.teacher_tokens)
    assert_nothing(TERMS["global_to_local"](), replace(inputs, teacher_tokens=empty))


def test_duplicates_of_one_caption_cost_ln_n_and_nothing_can_be_learned_from_them() -> None:
    inputs, leaves = with_gradients(all_duplicates(made(5)))
    value = TERMS["infonce"](mask_same_image=False)(inputs)
    assert value.item() == pytest.approx(math.log(5))
    assert all(gradient.abs().max() < 1e-12 for gradient in gradients(value, leaves).values())


# Purity


@every_case
def test_a_term_changes_neither_its_inputs_nor_the_random_numbers(case: str) -> None:
    inputs, leaves = with_gradients(made())
    before = [tensor.detach().clone() for tensor in tensors_of(inputs)]
    versions = [tensor._version for tensor in tensors_of(inputs)]
    random = torch.get_rng_state()
    first = term_of(case)(inputs)
    gradients(first, leaves)
    assert term_of(case)(inputs) == first
    assert all(torch.equal(old, new) for old, new in zip(before, tensors_of(inputs), strict=True))
    assert versions == [tensor._version for tensor in tensors_of(inputs)]
    assert torch.equal(random, torch.get_rng_state())


@every_case
def test_a_term_reads_only_what_it_says_it_needs(case: str) -> None:
    term, inputs = term_of(case), made()
    sentences = ("h_a", "h_b", "z_a", "z_b", "tie_order", "same_image", "learned_temperature")
    read = (*sentences, *(name for need in term.needs for name in READ_FOR[need]))
    alone = Inputs(**{name: getattr(inputs, name) for name in read})
    assert term(alone) == term(inputs)


# Symmetries


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", [case for case in CASES if "roll" not in case])
def test_the_order_of_the_rows_does_not_matter(case: str, seed: int) -> None:
    term, inputs = term_of(case), made()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    assert term(permuted(inputs, order)).item() == pytest.approx(term(inputs).item(), rel=1e-10)


@pytest.mark.parametrize("case", [case for case in CASES if case != "global_to_local-release"])
def test_a_rotation_of_every_space_does_not_matter(case: str) -> None:
    """The release's normalisation over the token axis is not invariant, which is why it is not ours."""
    term, inputs = term_of(case), made()
    assert term(rotated(inputs)).item() == pytest.approx(term(inputs).item(), rel=1e-10)


@pytest.mark.parametrize("case", [case for case in CASES if case != "global_to_local-release"])
def test_the_length_of_the_students_vectors_does_not_matter(case: str) -> None:
    term, inputs = term_of(case), made()
    longer = mapped(inputs, lambda name, t: 7 * t if name in STUDENT_SIDE and name != "match_logits" else t)
    assert term(longer).item() == pytest.approx(term(inputs).item(), rel=1e-10)


# Divergences

SCORES = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.lists(st.floats(-60, 60), min_size=n, max_size=n), min_size=2 * n, max_size=2 * n)
)


@given(scores=SCORES)
def test_jensen_shannon_is_symmetric_and_between_0_and_ln_2(scores: list[list[float]]) -> None:
    first, second = torch.tensor(scores, dtype=torch.float64).chunk(2)
    value = f.jensen_shannon(first, second).item()
    assert -1e-12 <= value <= math.log(2) + 1e-12
    assert f.jensen_shannon(second, first).item() == pytest.approx(value, abs=1e-12)
    assert f.jensen_shannon(first, first).item() == pytest.approx(0, abs=1e-12)


def test_jensen_shannon_reaches_ln_2_where_nothing_is_shared() -> None:
    first, second = torch.tensor([[500.0, -500.0]]), torch.tensor([[-500.0, 500.0]])
    assert f.jensen_shannon(first, second).item() == pytest.approx(math.log(2), rel=1e-6)


def test_two_directions_that_agree_cost_nothing() -> None:
    """cos(z_i, z_j) is symmetric when both views are equal."""
    assert TERMS["consistency_js"]()(dropout_off(made())).item() == pytest.approx(0, abs=1e-12)


def test_a_student_that_is_its_own_teacher_has_nothing_to_align() -> None:
    inputs = dropout_off(made())
    inputs = replace(inputs, teachers=(inputs.z_a,), teacher_weights=(1.0,))
    assert TERMS["intra_modal_alignment"]()(inputs).item() == pytest.approx(0, abs=1e-12)
    grounded = {"s_a": inputs.z_a, "s_b": inputs.z_a, "image_grounded": inputs.z_a, "clip_text_grounded": None}
    grounded |= {"candidates": None, "candidates_grounded": None}
    everywhere = replace(inputs, image=inputs.z_a, **grounded)
    same_temperature = TERMS["cross_modal_alignment"](image_target_temperature=0.2)
    assert same_temperature(everywhere).item() == pytest.approx(0, abs=1e-12)


@every_case
def test_no_term_is_ever_negative(case: str) -> None:
    assert all(term_of(case)(made(5, seed=seed)) >= 0 for seed in range(5))


# The angular margin (T1)


def negatives(*angles: float) -> Tensor:
    """A cosine matrix whose off-diagonal cells are the cosines of the angles, row by row."""
    n = math.isqrt(len(angles)) + 1
    matrix = torch.ones(n, n, dtype=torch.float64)
    matrix[~torch.eye(n, dtype=torch.bool)] = torch.tensor(angles, dtype=torch.float64).cos()
    return matrix


def test_the_jump_form_reproduces_the_fixture() -> None:
    moved = f.angular_margin(negatives(0.05, 0.15, 0.2, 0.3, 0.6, 1.0), margin=0.18, form="jump")
    expected = [0.9988, 0.9888, 0.9998, 0.9928, 0.9131, 0.6822]
    assert f.off_diagonal(moved).flatten().tolist() == pytest.approx(expected, abs=5e-5)
    assert torch.equal(moved.diagonal(), torch.ones(3, dtype=torch.float64))


def test_the_jump_is_where_the_angle_passes_the_full_margin_also_with_a_soft_one() -> None:
    """θ > m decides, not θ > Δ·m, and the shift is Δ·m."""
    cosines = negatives(0.1, 0.3)
    moved = f.angular_margin(cosines, margin=0.18, scale=torch.full_like(cosines, 0.5), form="jump")
    assert f.off_diagonal(moved).flatten().tolist() == pytest.approx([math.cos(0.1), math.cos(0.3 - 0.09)])


def test_the_continuous_form_stops_at_an_angle_of_zero() -> None:
    moved = f.angular_margin(negatives(0.05, 0.15, 0.2, 0.3, 0.6, 1.0), margin=0.18)
    expected = [1, 1, *(math.cos(angle - 0.18) for angle in (0.2, 0.3, 0.6, 1.0))]
    assert f.off_diagonal(moved).flatten().tolist() == pytest.approx(expected, abs=1e-9)


@given(
    pair=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    margin=st.floats(0, 3.1),
    scale=st.floats(0, 2),
)
def test_the_continuous_form_is_monotone_and_only_brings_negatives_closer(
    pair: tuple[float, float], margin: float, scale: float
) -> None:
    low, high = sorted(pair)
    cosines = torch.tensor([[0.3, low], [high, 0.3]], dtype=torch.float64)
    moved = f.angular_margin(cosines, margin=margin, scale=torch.full_like(cosines, scale))
    assert moved[0, 1] <= moved[1, 0] + 1e-12
    assert (f.off_diagonal(moved) >= f.off_diagonal(cosines) - 2e-7).all()
    assert torch.equal(moved.diagonal(), cosines.diagonal())


def test_the_jump_form_is_not_monotone() -> None:
    moved = f.angular_margin(negatives(0.15, 0.2), margin=0.18, form="jump")
    assert moved[0, 1] < moved[1, 0]


@pytest.mark.parametrize("form", ["continuous", "jump"])
def test_a_margin_makes_every_contrast_harder(form: str) -> None:
    inputs = made()
    plain, margined = (TERMS["infonce"](margin=margin, margin_form=form) for margin in (0.0, 0.2))
    assert margined(inputs) > plain(inputs)


# Ranking


@pytest.mark.parametrize("include_self", [True, False])
def test_a_constant_student_costs_ln_n_factorial(include_self: bool) -> None:
    """496 at n = 128, which is why ours is the mean over the list."""
    inputs = random_inputs(128)
    constant = mapped(inputs, lambda name, t: torch.ones_like(t) if name in ("z_a", "z_b") else t)
    total = TERMS["list_mle"](reduction="sum", include_self=include_self)(constant).item()
    listed = 128 if include_self else 127
    assert total == pytest.approx(math.lgamma(listed + 1), rel=1e-9)
    mean = TERMS["list_mle"](include_self=include_self)(constant).item()
    assert mean == pytest.approx(math.lgamma(listed + 1) / listed, rel=1e-9)
    if include_self:
        assert round(total) == 496


def test_the_order_of_the_teachers_is_the_cheapest_order() -> None:
    inputs = dropout_off(made())
    agreeing = replace(inputs, teachers=(inputs.z_a,), teacher_weights=(1.0,))
    opposed = replace(inputs, teachers=(made(seed=9).z_a,), teacher_weights=(1.0,))
    assert TERMS["list_mle"]()(agreeing) < TERMS["list_mle"]()(opposed)


# The weighted sum

ALL = Objective(
    infonce=TERMS["infonce"](weight=1.0, margin=0.2),
    grounding=TERMS["grounding"](weight=0.1, margin=0.2),
    consistency=TERMS["consistency"](weight=0.01),
    cross_modal_alignment=TERMS["cross_modal_alignment"](weight=0.3),
    list_mle=TERMS["list_mle"](weight=0.2, on_text=True),
    list_net=TERMS["list_net"](weight=0.7),
    consistency_js=TERMS["consistency_js"](weight=0.5, on_text=True),
    intra_modal_alignment=TERMS["intra_modal_alignment"](weight=0.25),
    global_to_local=TERMS["global_to_local"](weight=0.05),
)


def test_the_total_is_the_sum_of_weight_times_term() -> None:
    inputs = made()
    losses = ALL(inputs, "pair")
    assert list(losses.terms) == list(TERMS)
    by_hand = 0.0
    for name in TERMS:
        term = getattr(ALL, name)
        assert losses.terms[name] == term(inputs)
        by_hand += term.weight * losses.terms[name].item()
    assert losses.total.item() == pytest.approx(by_hand, rel=1e-12)


def test_text_batches_have_only_the_terms_that_are_on_text() -> None:
    inputs = made()
    text = Inputs(
        **{
            name: getattr(inputs, name)
            for name in ("h_a", "h_b", "z_a", "z_b", "tie_order", *READ_FOR[Need.TEACHERS])
        }
    )
    losses = ALL(text, "text")
    assert list(losses.terms) == ["infonce", "list_mle", "consistency_js"]
    expected = losses.terms["infonce"] + 0.2 * losses.terms["list_mle"] + 0.5 * losses.terms["consistency_js"]
    assert losses.total.item() == pytest.approx(expected.item(), rel=1e-12)
    assert ALL.needs("text") == {Need.TEACHERS}
    assert ALL.needs("pair") == set(Need) - {
        Need.CANDIDATES,
        Need.CLIP_SPACE,
        Need.CLIP_TEXT,
        Need.CLIP_TEXT_GROUNDING,
        Need.MATCH_CLASSIFIER,
    }


@pytest.mark.parametrize("name", ["grounding", "consistency", "cross_modal_alignment"])
def test_terms_of_image_and_caption_cannot_be_put_on_text(name: str) -> None:
    with pytest.raises(ValidationError, match="on_text"):
        TERMS[name](on_text=True)


@pytest.mark.parametrize("name", TERMS)
def test_a_weight_of_zero_switches_a_term_off(name: str) -> None:
    other = "list_net" if name == "infonce" else "infonce"
    objective = Objective(**{name: TERMS[name](weight=0.0), other: TERMS[other]()})
    assert objective.term(name) is None
    assert list(objective(made(), "pair").terms) == [other]
    assert objective.needs("pair") == TERMS[other]().needs


def test_an_objective_without_a_term_for_a_batch_says_so() -> None:
    with pytest.raises(ValueError, match="no term for text batches"):
        Objective(grounding=TERMS["grounding"]())(made(), "text")


# Trained temperatures


def temperature_heads(term: Term, name: str) -> Heads:
    assert term.learns_temperature is not None
    return Heads(
        HeadsConfig(sentence=False),
        student_dim=6,
        image_dim=None,
        clip_text_dim=None,
        needs=frozenset(),
        temperatures={name: term.learns_temperature},
    )


LEARNING = [("cross_modal_alignment", {"text_temperature": 0.45}), ("intra_modal_alignment", {"temperature": 0.45})]


@pytest.mark.parametrize(("name", "fields"), LEARNING)
def test_a_trained_temperature_starts_where_it_is_stated_and_gets_a_gradient(name: str, fields: Fields) -> None:
    term = TERMS[name](learn_temperature=True, temperature_bounds=(0.1, 0.99), **fields)
    heads = temperature_heads(term, name)
    value = term(replace(made(), learned_temperatures=heads.temperatures()).of_term(name))
    assert value.item() == pytest.approx(TERMS[name](**fields)(made()).item(), rel=1e-5)
    value.backward()
    gradient = heads.log_temperatures[name].grad
    assert gradient is not None
    assert gradient.abs() > 1e-4


@pytest.mark.parametrize(("name", "fields"), LEARNING)
@pytest.mark.parametrize(("start", "held"), [(0.01, 0.1), (5.0, 0.99), (0.3, 0.3)])
def test_a_trained_temperature_stays_inside_its_bounds(
    name: str, fields: Fields, start: float, held: float
) -> None:
    term = TERMS[name](learn_temperature=True, temperature_bounds=(0.1, 0.99), **fields)
    heads = temperature_heads(term, name)
    heads.log_temperatures[name].data.fill_(math.log(start))
    assert heads.temperatures()[name].item() == pytest.approx(held)


def test_both_directions_share_one_trained_temperature_in_proportion() -> None:
    """Twice the text temperature is twice the image temperature."""
    learned = TERMS["cross_modal_alignment"](learn_temperature=True, text_temperature=0.2, image_temperature=0.1)
    fixed = TERMS["cross_modal_alignment"](text_temperature=0.4, image_temperature=0.2)
    value = learned(replace(made(), learned_temperature=torch.tensor(0.4, dtype=torch.float64)))
    assert value.item() == pytest.approx(fixed(made()).item(), rel=1e-12)


@pytest.mark.parametrize("name", [name for name in TERMS if name not in dict(LEARNING)])
def test_other_terms_train_no_temperature(name: str) -> None:
    assert TERMS[name]().learns_temperature is None
