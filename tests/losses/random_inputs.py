"""Inputs made on the spot with all that a term may read, and the same inputs in another dtype, order or place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from dalr.losses.inputs import Inputs, TeacherTokens

STUDENT_SIDE = (
    "z_a",
    "z_b",
    "s_a",
    "s_b",
    "image_grounded",
    "candidates_grounded",
    "clip_text_grounded",
    "text_aligned",
    "image_aligned",
    "match_logits",
)
"""Fields that gradients flow into."""


def random_inputs(n: int = 7, *, dtype: torch.dtype = torch.float64, seed: int = 0, noise: float = 0.8) -> Inputs:
    """Two views of n sentences that differ by noise; with four rows or more, rows 0 and 2 share an image.

    The image features are as wide as the sentences, so that every form of every term has what it needs.
    """
    random = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    def pair(dim: int) -> tuple[Tensor, Tensor]:
        base = draw(n, dim)
        return base + noise * draw(n, dim), base + noise * draw(n, dim)

    h_a, h_b = pair(6)
    z_a, z_b = pair(6)
    s_a, s_b = pair(4)
    image, same_image = draw(n, 6), torch.eye(n, dtype=torch.bool)
    image_grounded, image_aligned = draw(n, 4), draw(n, 5)
    if n > 3:
        for rows in (image, image_grounded, image_aligned):
            rows[2] = rows[0]
        same_image[0, 2] = same_image[2, 0] = True
    masks = [
        torch.arange(length)[None] < torch.randint(1, length + 1, (n, 1), generator=random) for length in (5, 3)
    ]
    inputs = Inputs(
        h_a=h_a,
        h_b=h_b,
        z_a=z_a,
        z_b=z_b,
        tie_order=torch.randperm(n, generator=random),
        s_a=s_a,
        s_b=s_b,
        image=image,
        image_grounded=image_grounded,
        same_image=same_image,
        clip_text=draw(n, 6),
        clip_text_grounded=draw(n, 4),
        text_aligned=draw(n, 5),
        image_aligned=image_aligned,
        unmatched=torch.arange(n).roll(-1) if n > 1 else None,
        match_logits=draw(2 * n, 2) if n > 1 else None,
        teachers=(draw(n, 8), draw(n, 5)),
        teacher_weights=(0.33, 0.67),
        teacher_tokens=tuple(
            TeacherTokens(states=draw(*mask.shape, 6), mask=mask, weight=weight)
            for mask, weight in zip(masks, (0.33, 0.67), strict=True)
        ),
        learned_temperature=torch.tensor(0.3, dtype=torch.float64),
    )
    distinct = [row for row in range(n) if row != 2 or n < 4]
    return cast(
        replace(
            inputs,
            candidates=torch.cat([image[distinct], draw(3, 6)]),
            candidates_grounded=torch.cat([image_grounded[distinct], draw(3, 4)]),
            own_candidate=torch.tensor([distinct.index(0 if row == 2 and n > 3 else row) for row in range(n)]),
        ),
        dtype,
    )


def equal_dims(inputs: Inputs) -> Inputs:
    """Teachers of one dimension and one tokenizer, as the release needs them."""
    first, second = inputs.teachers
    one, two = inputs.teacher_tokens
    length = two.states.shape[1]
    shorter = replace(one, states=one.states[:, :length], mask=two.mask)
    return replace(inputs, teachers=(first[:, : second.shape[1]], second), teacher_tokens=(shorter, two))


def mapped(inputs: Inputs, change: Callable[[str, Tensor], Tensor]) -> Inputs:
    """The views with every floating-point tensor changed; tokens go by the name `teacher_tokens`."""

    def new(name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return change(name, value) if value.is_floating_point() else value
        if isinstance(value, TeacherTokens):
            return replace(value, states=change(name, value.states))
        if isinstance(value, tuple):
            return tuple(new(name, item) for item in value)
        if isinstance(value, dict):
            return {key: new(name, item) for key, item in value.items()}
        return value

    return replace(inputs, **{field.name: new(field.name, getattr(inputs, field.name)) for field in fields(inputs)})


def cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return mapped(inputs, lambda _, tensor: tensor.to(dtype))


def with_gradients(inputs: Inputs) -> tuple[Inputs, dict[str, Tensor]]:
    """The views over fresh leaves, and the leaves of the student's side by name."""
    made = mapped(inputs, lambda name, t: t.detach().clone().requires_grad_(name in STUDENT_SIDE))
    leaves = {name: getattr(made, name) for name in STUDENT_SIDE}
    return made, {name: leaf for name, leaf in leaves.items() if leaf is not None}


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """Every tensor in the inputs, of any dtype."""

    def inside(value: Any) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value]
        if isinstance(value, TeacherTokens):
            return [value.states, value.mask]
        if isinstance(value, tuple):
            return [tensor for item in value for tensor in inside(item)]
        if isinstance(value, dict):
            return [tensor for item in value.values() for tensor in inside(item)]
        return []

    return [tensor for field in fields(inputs) for tensor in inside(getattr(inputs, field.name))]


def permuted(inputs: Inputs, order: Tensor) -> Inputs:
    """The same batch with its rows in another order: new row i is old row `order[i]`."""
    place = order.argsort()
    """The new row of each old one."""

    def rows(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim == 0 or name.startswith("candidates"):
            return tensor
        if name == "match_logits":
            return torch.cat([half[order] for half in tensor.chunk(2)])
        return tensor[order]

    moved = mapped(inputs, rows)
    return replace(
        moved,
        tie_order=place[inputs.tie_order],
        unmatched=place[inputs.unmatched[order]] if inputs.unmatched is not None else None,
        same_image=inputs.same_image[order][:, order] if inputs.same_image is not None else None,
        own_candidate=inputs.own_candidate[order] if inputs.own_candidate is not None else None,
        teacher_tokens=tuple(replace(tokens, mask=tokens.mask[order]) for tokens in moved.teacher_tokens),
    )


def rotated(inputs: Inputs, seed: int = 0) -> Inputs:
    """Every space rotated (or reflected) as a whole; fields that are compared with each other lie in one space."""
    random = torch.Generator().manual_seed(seed)
    space_of = {name: space for space, members in SPACES.items() for name in members}
    turns: dict[tuple[str, int], Tensor] = {}

    def turn(name: str, tensor: Tensor) -> Tensor:
        if name not in space_of:
            return tensor
        dim = tensor.shape[-1]
        key = (space_of[name], dim)
        if key not in turns:
            turns[key] = torch.linalg.qr(torch.randn(dim, dim, generator=random, dtype=tensor.dtype)).Q
        return tensor @ turns[key]

    return mapped(inputs, turn)


SPACES = {
    "sentences": ("z_a", "z_b", "teacher_tokens", "image", "candidates", "clip_text"),
    "teachers": ("teachers",),
    "grounding": ("s_a", "s_b", "image_grounded", "candidates_grounded", "clip_text_grounded"),
    "aligned": ("text_aligned", "image_aligned"),
}
