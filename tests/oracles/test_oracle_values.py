"""Every value in `$DALR_SHARED/oracles`, reached in float64 to 1e-9.

Which entries there are, and their sizes, margins and temperatures, is read from the manifest; the kind of an
entry is the beginning of its name. Whole steps go through the shipped recipes, with overrides only where the step
was computed with other numbers, and through real heads with the stored weights.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dalr.evaluation.geometry import alignment, uniformity
from dalr.losses import TERMS, Losses, Need
from dalr.losses import functional as f
from dalr.losses.inputs import Inputs, TeacherTokens
from dalr.models.config import HeadsConfig
from dalr.models.heads import Heads
from dalr.recipe.loading import load_recipe
from dalr.recipe.schema import Recipe

RTOL = 1e-9
TWO_HEADS = {"grounding": "text_grounding.0", "vision": "image_grounding.0"}

Tensors = Mapping[str, Tensor]
Params = Mapping[str, Any]
Values = Mapping[str, Tensor | float]
"""What was computed, under the names of the manifest's `expected` or of a stored intermediate tensor."""


def names() -> list[str]:
    """The entries of the manifest; its own name stands in where it is absent, so that its absence is reported."""
    shared = Path(os.environ.get("DALR_SHARED", Path(__file__).parents[3] / "shared"))
    manifest = shared / "oracles" / "manifest.json"
    return list(json.loads(manifest.read_text())) if manifest.is_file() else [manifest.name]


@pytest.mark.parametrize("name", names())
def test_the_oracle_is_reached(shared: Path, name: str) -> None:
    entry = json.loads((shared / "oracles" / "manifest.json").read_text())[name]
    check = check_of(name)
    tensors = load_file(shared / "oracles" / entry["file"])
    computed = check(tensors, entry["params"])
    expected = {**entry["expected"], **{key: tensors[key] for key in computed if key in tensors}}
    assert computed.keys() == expected.keys(), f"{name}: computed {sorted(computed)}, expected {sorted(expected)}"
    for key, value in expected.items():
        found = torch.as_tensor(computed[key], dtype=torch.float64)
        wanted = torch.as_tensor(value, dtype=torch.float64)
        torch.testing.assert_close(found, wanted, rtol=RTOL, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")


def test_an_oracle_of_an_unknown_kind_is_no_pass() -> None:
    with pytest.raises(
        AssertionError, match=r"'triplet_7': no check for an oracle of this kind; known: arc_margin"
    ):
        check_of("triplet_7")


def test_the_release_recipe_states_the_released_numbers() -> None:
    """So that the stored step is reached by the recipe itself, not by overrides."""
    params = {"temperature": 0.05, "temperature_vl": 0.05, "margin": 0.18, "alpha": 0.33}
    params["weights"] = "contrastive + 0.1*cross + 0.2*intra"
    assert overrides(load_recipe("dalr-release"), release_settings(params)) == []


# One tensor function at a time


def arc_margin(tensors: Tensors, params: Params) -> Values:
    margin, temperature = float(params["margin"]), float(params["temperature"])
    cosines = f.cosine_matrix(tensors["x"], tensors["y"])
    logits = f.angular_margin(cosines, margin=margin, form="jump") / temperature
    soft = f.angular_margin(cosines, margin=margin, scale=1 - tensors["soft"], form="jump") / temperature
    term = TERMS["infonce"](margin=margin, margin_form="jump", temperature=temperature)
    return {
        "logits": logits,
        "logits_soft": soft,
        "ce": term(sentence_inputs(tensors["x"], tensors["y"])),
        "ce_soft": f.own_cross_entropy(soft),
    }


def info_nce(tensors: Tensors, params: Params) -> Values:
    term = TERMS["infonce"](temperature=float(params["temperature"]))
    return {"loss": term(sentence_inputs(tensors["x"], tensors["y"]))}


def divergence(tensors: Tensors, params: Params) -> Values:
    target = (tensors["teacher"] / params["target_temperature"]).log_softmax(1)
    student = (tensors["student"] / params["student_temperature"]).log_softmax(1)
    return {"loss": f.distribution_divergence(target, student)}


def listnet(tensors: Tensors, params: Params) -> Values:
    student, teacher = f.off_diagonal(tensors["student"]), f.off_diagonal(tensors["teacher"])
    return {"loss": params["gamma"] * f.list_net(student, teacher)}


def listmle(tensors: Tensors, params: Params, *, include_self: bool) -> Values:
    order = torch.arange(len(tensors["teacher"]))
    ranks = f.ranks_of(tensors["teacher"], tie_order=order, include_self=include_self)
    value = f.list_mle(tensors["student"], ranks, mean_over_list=False, epsilon=1e-7)
    return {"loss": params["gamma"] * value}


def global_to_local(tensors: Tensors, params: Params) -> Values:
    mask, z = tensors["mask"].bool(), tensors["z"]
    term = TERMS["global_to_local"](temperature=float(params["temperature"]))
    tokens = TeacherTokens(states=tensors["tokens"], mask=mask, weight=1.0)
    alone = f.token_contrast(z, tensors["tokens"], mask, temperature=params["temperature"])
    through_term = term(sentence_inputs(z, z, teacher_tokens=(tokens,)))
    torch.testing.assert_close(through_term, alone, rtol=RTOL, atol=0)
    return {"loss": alone}


def consistency(tensors: Tensors, params: Params) -> Values:
    heads = heads_with(tensors, {}, RELEASED_ALIGNERS, frozenset({Need.IMAGE, Need.ALIGNERS}))
    assert heads.text_aligner is not None
    assert heads.image_aligner is not None
    text, matched = heads.text_aligner(tensors["z"]), heads.image_aligner(tensors["image"])
    unmatched = heads.image_aligner(tensors["unmatched"])
    loss = f.cosine_embedding(text, matched, unmatched, margin=params["margin"])
    aligned = {"text_aligned": text, "image_aligned": matched, "image_aligned_unmatched": unmatched}
    return {"loss": loss, **aligned}


def align_uniform(tensors: Tensors, params: Params) -> Values:
    x, y = tensors["x"].numpy(), tensors["y"].numpy()
    both = np.concatenate([x, y])
    return {"align": alignment(x, y, alpha=params["alpha"]), "uniform": uniformity(both, t=params["t"])}


# Whole paired steps


def mcse_step(tensors: Tensors, params: Params) -> Values:
    return multimodal_step("mcse", tensors, params, TWO_HEADS)


def kdmcse_step(tensors: Tensors, params: Params) -> Values:
    return multimodal_step("kdmcse", tensors, params, {**TWO_HEADS, "clip_text_head": "clip_text_grounding.0"})


def multimodal_step(method: str, tensors: Tensors, params: Params, head_names: Mapping[str, str]) -> Values:
    """MCSE or KDMCSE as released: jump margin, and captions of the same image as negatives."""
    settings = {"objective.grounding.mask_same_image": False, "objective.grounding.weight": params["lam"]}
    for term in ("infonce", "grounding"):
        settings[f"objective.{term}.temperature"] = params["temperature"]
        settings[f"objective.{term}.margin_form"] = "jump"
        settings[f"objective.{term}.margin"] = params.get("margin", 0.0)
    recipe = load_recipe(method, overrides(load_recipe(method), settings))
    losses = step(recipe, tensors, head_names)
    values = {"contrastive": losses.terms["infonce"], "inter": losses.terms["grounding"]}
    return {**values, "total": losses.total}


def dalr_release_step(tensors: Tensors, params: Params) -> Values:
    recipe = load_recipe("dalr-release", overrides(load_recipe("dalr-release"), release_settings(params)))
    losses = step(recipe, tensors, {"grounding_text": "text_grounding.0", "vision": "image_grounding.0"})
    cross, intra = release_weights(params)

    def group(scale: float, *terms: str) -> Tensor:
        weighted = [recipe.objective.term(name).weight * losses.terms[name] for name in terms]  # type: ignore[union-attr]
        return sum(weighted[1:], weighted[0]) / scale

    assert losses.terms.keys() == {"infonce", *CROSS, *INTRA}
    return {
        "contrastive": losses.terms["infonce"],
        "cross": group(cross, *CROSS),
        "intra": group(intra, *INTRA),
        "total": losses.total,
    }


CROSS = {"consistency": 0.01, "cross_modal_alignment": 1.0, "grounding": 1.0}
"""Terms of the released cross-modal loss, with their weights inside it."""
INTRA = {"intra_modal_alignment": 1.0, "list_mle": 1.0, "global_to_local": 1.0}


def release_settings(params: Params) -> dict[str, Any]:
    """The recipe keys behind the parameters of a released step (its τ_2 has no effect on ListMLE)."""
    temperature, image_temperature = params["temperature"], params["temperature_vl"]
    cross, intra = release_weights(params)
    return {
        "objective.infonce.temperature": temperature,
        "objective.list_mle.temperature": temperature,
        "objective.intra_modal_alignment.logit_temperature": temperature,
        "objective.grounding.temperature": image_temperature,
        "objective.cross_modal_alignment.logit_temperature": image_temperature,
        **{
            f"objective.{term}.margin": params["margin"]
            for term in ("infonce", "grounding", "cross_modal_alignment", "list_mle", "intra_modal_alignment")
        },
        **{f"objective.{term}.weight": cross * inside for term, inside in CROSS.items()},
        **{f"objective.{term}.weight": intra * inside for term, inside in INTRA.items()},
        "teachers.0.weight": params["alpha"],
        "teachers.1.weight": 1 - params["alpha"],
    }


def release_weights(params: Params) -> tuple[float, float]:
    """λ and μ from "contrastive + 0.1*cross + 0.2*intra"."""
    found = re.fullmatch(r"contrastive \+ ([\d.e-]+)\*cross \+ ([\d.e-]+)\*intra", params["weights"])
    assert found is not None, f"cannot read the weights {params['weights']!r}"
    return float(found[1]), float(found[2])


def overrides(recipe: Recipe, settings: Mapping[str, Any]) -> list[str]:
    """`-s` overrides for the settings that the recipe does not have already."""
    return [
        f"{key}={json.dumps(value).strip(chr(34))}"
        for key, value in settings.items()
        if not same(value_at(recipe, key), value)
    ]


def value_at(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = value[int(part)] if part.isdigit() else getattr(value, part)
    return value


def same(first: Any, second: Any) -> bool:
    numbers = isinstance(first, float) and isinstance(second, int | float)
    return first == pytest.approx(second, rel=1e-12) if numbers else first == second


def step(recipe: Recipe, tensors: Tensors, head_names: Mapping[str, str]) -> Losses:
    """One paired step of a recipe on stored student outputs, through real heads with the stored weights."""
    heads = heads_with(tensors, head_names, recipe.heads, recipe.objective.needs("pair"))
    (h_a, h_b), (z_a, z_b) = tensors["cls"].unbind(1), tensors["z"].unbind(1)
    image, clip_text = tensors["image"], tensors.get("clip_text")
    weights = tuple(teacher.weight for teacher in recipe.teachers)
    teachers = tuple(tensors[key] for key in ("teacher1", "teacher2") if key in tensors)
    tokens = tuple(
        TeacherTokens(states=tensors[f"teacher{number}_tokens"], mask=tensors["token_mask"].bool(), weight=weight)
        for number, weight in enumerate(weights, start=1)
    )
    assert heads.text_grounding is not None
    assert heads.image_grounding is not None
    inputs = sentence_inputs(
        z_a,
        z_b,
        h_a=h_a,
        h_b=h_b,
        s_a=heads.text_grounding(h_a),
        s_b=heads.text_grounding(h_b),
        image=image,
        image_grounded=heads.image_grounding(image),
        same_image=torch.eye(len(image), dtype=torch.bool),
        clip_text=clip_text,
        clip_text_grounded=heads.clip_text_grounding(clip_text) if heads.clip_text_grounding else None,
        text_aligned=heads.text_aligner(z_a) if heads.text_aligner else None,
        image_aligned=heads.image_aligner(image) if heads.image_aligner else None,
        teachers=teachers,
        teacher_weights=weights,
        teacher_tokens=tokens,
    )
    return recipe.objective(inputs, "pair")


# Heads and views from stored tensors

RELEASED_ALIGNERS = HeadsConfig(aligner_norm="batch", aligner_output="norm_relu")
_NOT_STORED = re.compile(r"sentence\.0\..*|.*\.(running_mean|running_var|num_batches_tracked)")


def heads_with(tensors: Tensors, names: Mapping[str, str], config: HeadsConfig, needs: frozenset[Need]) -> Heads:
    """Heads of the stored dimensions in training mode; `names` says which head a stored prefix belongs to."""
    stored = {
        ".".join([names.get(prefix, prefix), rest]): tensor
        for name, tensor in tensors.items()
        for prefix, _, rest in [name.partition(".")]
        if rest
    }
    dims = {
        "grounding_dim": len(stored.get("text_grounding.0.bias", [0])),
        "aligner_dim": len(stored.get("text_aligner.3.bias", [0])),
    }
    clip_text = tensors.get("clip_text")
    heads = Heads(
        config.model_copy(update=dims),
        student_dim=tensors["z"].shape[-1],
        image_dim=tensors["image"].shape[1],
        clip_text_dim=clip_text.shape[1] if clip_text is not None else None,
        needs=needs,
        temperatures={},
    ).double()
    missing, unexpected = heads.load_state_dict(stored, strict=False)
    assert unexpected == [], "stored weights without a head"
    assert [name for name in missing if not _NOT_STORED.fullmatch(name)] == [], "heads without stored weights"
    return heads.train()


def sentence_inputs(z_a: Tensor, z_b: Tensor, **others: Any) -> Inputs:
    order = torch.arange(len(z_a))
    return Inputs(**{"h_a": z_a, "h_b": z_b, **others}, z_a=z_a, z_b=z_b, tie_order=order)


# The kinds

CHECKS: Mapping[str, Callable[[Tensors, Params], Values]] = {
    "arc_margin": arc_margin,
    "info_nce": info_nce,
    "kl": divergence,
    "listnet": listnet,
    "listmle_sum_with_diagonal": lambda tensors, params: listmle(tensors, params, include_self=True),
    "listmle_sum_off_diagonal": lambda tensors, params: listmle(tensors, params, include_self=False),
    "global_to_local": global_to_local,
    "consistency": consistency,
    "dalr_release_pair_step": dalr_release_step,
    "kdmcse_pair_step": kdmcse_step,
    "mcse_pair_step": mcse_step,
    "align_uniform": align_uniform,
}


def check_of(name: str) -> Callable[[Tensors, Params], Values]:
    """The check of an oracle: its name is a kind, or a kind with `_` and more."""
    for kind, check in CHECKS.items():
        if name == kind or name.startswith(f"{kind}_"):
            return check
    raise AssertionError(f"{name!r}: no check for an oracle of this kind; known: {', '.join(CHECKS)}")
