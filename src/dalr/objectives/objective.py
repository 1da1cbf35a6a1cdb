"""The weighted sum of terms. A new term is one class and one line in `TERMS`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import create_model

from dalr.objectives.alignment import CrossModalAlignment, IntraModalAlignment
from dalr.objectives.consistency import Consistency
from dalr.objectives.contrastive import Grounding, InfoNCE
from dalr.objectives.ranking import ConsistencyJS, ListMLE, ListNet
from dalr.objectives.term import BatchKind as BatchKind
from dalr.objectives.term import Need, Term
from dalr.objectives.token_level import GlobalToLocal
from dalr.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.objectives.views import Views

TERMS: Mapping[str, type[Term]] = {
    "infonce": InfoNCE,
    "grounding": Grounding,
    "consistency": Consistency,
    "cross_modal_alignment": CrossModalAlignment,
    "list_mle": ListMLE,
    "list_net": ListNet,
    "consistency_js": ConsistencyJS,
    "intra_modal_alignment": IntraModalAlignment,
    "global_to_local": GlobalToLocal,
}


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The value of an objective on one batch."""

    total: Tensor
    """Σ weight · term, a scalar."""
    terms: Mapping[str, Tensor]
    """Each term that this batch had, unweighted."""


class ObjectiveBase(Section):
    """Terms by name; a term that is null or has weight 0 is off."""

    def term(self, name: str) -> Term | None:
        """The term of this name if it is on."""
        return dict(self.active()).get(name)

    def active(self) -> Iterator[tuple[str, Term]]:
        """The terms that are on, with their names."""
        for name in TERMS:
            term = getattr(self, name)
            if term is not None and term.weight > 0:
                yield name, term

    def on(self, kind: BatchKind) -> Iterator[tuple[str, Term]]:
        """The terms that apply to batches of `kind`."""
        return ((name, term) for name, term in self.active() if term.applies_to(kind))

    @property
    def candidates(self) -> int | None:
        """Distinct images that the captions of a batch choose among; None: those of the batch."""
        grounding = self.term("grounding")
        return grounding.candidates if isinstance(grounding, Grounding) else None

    def needs(self, kind: BatchKind) -> frozenset[Need]:
        """What the terms read on batches of `kind`, beyond the two student views."""
        return frozenset[Need]().union(*(term.needs for _, term in self.on(kind)))

    def __call__(self, views: Views, kind: BatchKind) -> Losses:
        """Evaluate every term that applies to `kind` and add them up.

        Args:
            views: the tensors of a batch; those that `needs(kind)` names must be there.
            kind: `pair` has every term, `text` those that apply to sentences without images.

        Raises:
            ValueError: no term applies to batches of this kind.
        """
        values = {name: term(views) for name, term in self.on(kind)}
        if not values:
            raise ValueError(f"the objective has no term for {kind} batches")
        weighted = [getattr(self, name).weight * value for name, value in values.items()]
        return Losses(total=sum(weighted[1:], weighted[0]), terms=values)


if TYPE_CHECKING:

    class Objective(ObjectiveBase):
        """An objective whose recipe keys are the names in `TERMS`."""

        def __init__(self, **terms: Term | None) -> None: ...

else:
    Objective = create_model(
        "Objective",
        __base__=ObjectiveBase,
        __doc__="An objective whose recipe keys are the names in `TERMS`.",
        __module__=__name__,
        **{name: (term | None, None) for name, term in TERMS.items()},
    )
