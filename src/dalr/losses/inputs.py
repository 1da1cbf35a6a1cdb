"""What does a term of the objective read? `Inputs`: the student's outputs and the frozen `Targets` of one batch.

Terms are pure functions of this one value. What is random in them (the derangement of the match task, the order
among ties) is a field of the targets, drawn from (seed, step) and equal on all ranks.

A new input to a term is added in three places: a field here, where it is filled (the targets in
`training/batch.py`, the student's side in `models/outputs.py`), and the term that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dalr.seed import generator

_HALVES = (torch.bfloat16, torch.float16)
_DERIVED: Any = None
"""The default of a field that `Inputs` derives where it is not given."""


@dataclass(frozen=True, kw_only=True)
class TeacherTokens:
    """Last hidden states of one online teacher for the batch."""

    states: Float[Tensor, "n l d"]
    mask: Bool[Tensor, "n l"]
    """Real tokens (padding and the leading CLS are not)."""
    weight: float


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What is known of a batch without the student: frozen vectors, and what is drawn at random for its step."""

    tie_order: Int[Tensor, " n"] = _DERIVED
    """A random permutation of the rows: the order among ties."""
    image: Float[Tensor, "n w"] | None = None
    """v: frozen image feature of the paired image."""
    candidates: Float[Tensor, "k w"] | None = None
    """Frozen features of distinct images, those of the batch among them."""
    own_candidate: Int[Tensor, " n"] | None = None
    """The candidate that is the image of a row."""
    same_image: Bool[Tensor, "n n"] | None = None
    """Rows that share an image; the diagonal is true."""
    clip_text: Float[Tensor, "n c"] | None = None
    """c: frozen CLIP text feature of the caption."""
    unmatched: Int[Tensor, " n"] | None = None
    """π: a derangement that avoids the same image; None where none exists."""
    teachers: tuple[Float[Tensor, "n _"], ...] = ()
    """e^(k): sentence vectors of the frozen teachers."""
    teacher_weights: tuple[float, ...] = ()
    """α_k."""
    teacher_tokens: tuple[TeacherTokens, ...] = ()

    def with_tensors(self, change: Callable[[Tensor], Tensor]) -> Targets:
        """The same targets with every tensor changed."""
        return with_tensors(self, change)

    def as_fields(self) -> dict[str, Any]:
        """The targets by name, as `Inputs` takes them."""
        return {each.name: getattr(self, each.name) for each in fields(Targets)}


@dataclass(frozen=True)
class Inputs(Targets):
    """One batch as the objective sees it. Absent inputs are None or empty.

    `Inputs(h_a, h_b, seed=0)` is enough for terms that compare sentences: z is then h itself, the teachers count
    alike, and the order among ties is drawn from the seed.
    """

    h_a: Float[Tensor, "n d"] = field(kw_only=False)
    """Pooled student output of the first dropout pass."""
    h_b: Float[Tensor, "n d"] = field(kw_only=False)
    """The same of the second pass."""
    z_a: Float[Tensor, "n z"] = field(default=_DERIVED, kw_only=True)
    """Sentence head of h_a; h_a itself where it is not given."""
    z_b: Float[Tensor, "n z"] = field(default=_DERIVED, kw_only=True)
    s_a: Float[Tensor, "n g"] | None = field(default=None, kw_only=True)
    """Text grounding head of h_a."""
    s_b: Float[Tensor, "n g"] | None = field(default=None, kw_only=True)
    image_grounded: Float[Tensor, "n g"] | None = field(default=None, kw_only=True)
    """u: image grounding head of v."""
    candidates_grounded: Float[Tensor, "k g"] | None = field(default=None, kw_only=True)
    """Image grounding head of `candidates`."""
    clip_text_grounded: Float[Tensor, "n g"] | None = field(default=None, kw_only=True)
    """t: CLIP-text grounding head of c."""
    text_aligned: Float[Tensor, "n a"] | None = field(default=None, kw_only=True)
    """Text aligner of z_a."""
    image_aligned: Float[Tensor, "n a"] | None = field(default=None, kw_only=True)
    """Image aligner of v."""
    match_logits: Float[Tensor, "m 2"] | None = field(default=None, kw_only=True)
    """Match classifier on the matched pairs, then on the unmatched ones (column 1: match)."""
    learned_temperatures: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict, kw_only=True)
    """Student temperatures that are trained, by term."""
    learned_temperature: Float[Tensor, ""] | None = field(default=None, kw_only=True)
    """That of the term which reads these inputs."""
    seed: InitVar[int] = field(default=0, kw_only=True)
    """Of the order among ties, where `tie_order` is not given."""

    def __post_init__(self, seed: int) -> None:
        derived: dict[str, Any] = {}
        if self.z_a is None:
            derived["z_a"] = self.h_a
        if self.z_b is None:
            derived["z_b"] = self.h_b
        if self.tie_order is None:
            order = generator(seed, "ties").permutation(len(self.h_a))
            derived["tie_order"] = torch.from_numpy(order).to(self.h_a.device)
        if self.teachers and not self.teacher_weights:
            derived["teacher_weights"] = (1 / len(self.teachers),) * len(self.teachers)
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def of_term(self, name: str) -> Inputs:
        """These inputs as the term of this name reads them: with its own trained temperature."""
        temperature = self.learned_temperatures.get(name)
        return self if temperature is self.learned_temperature else replace(self, learned_temperature=temperature)

    def at_least_fp32(self) -> Inputs:
        """These inputs with tensors of half precision in fp32; the same object where there are none."""
        return with_tensors(self, lambda tensor: tensor.float() if tensor.dtype in _HALVES else tensor)


C = TypeVar("C", bound=Targets)


def with_tensors(bag: C, change: Callable[[Tensor], Tensor]) -> C:
    """A dataclass of tensors with every tensor changed; the same object where none is."""
    changed = {each.name: _changed(getattr(bag, each.name), change) for each in fields(bag)}
    differing = {name: value for name, value in changed.items() if value is not getattr(bag, name)}
    return replace(bag, **differing) if differing else bag


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, TeacherTokens):
        states, mask = change(value.states), change(value.mask)
        return value if states is value.states and mask is value.mask else replace(value, states=states, mask=mask)
    if isinstance(value, tuple):
        items = tuple(_changed(item, change) for item in value)
        return items if _differ(items, value) else value
    if isinstance(value, Mapping):
        entries = {key: _changed(item, change) for key, item in value.items()}
        return entries if _differ(list(entries.values()), list(value.values())) else value
    return value


def _differ(new: Sequence[Any], old: Sequence[Any]) -> bool:
    return any(one is not other for one, other in zip(new, old, strict=True))
