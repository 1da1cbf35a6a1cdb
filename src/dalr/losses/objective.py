"""What is minimised? The weighted sum of the terms that a recipe names, dalr's own and registered ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import (
    ConfigDict,
    SerializeAsAny,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from dalr.errors import did_you_mean
from dalr.losses.registry import TERMS, known_terms, source_sha256, term_class
from dalr.losses.term import BatchKind, Need, Term
from dalr.recipe.document import with_tuples
from dalr.recipe.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The value of an objective on one batch."""

    total: Tensor
    """Σ weight · term, a scalar."""
    terms: Mapping[str, Tensor]
    """Each term that this batch had, unweighted."""
    gradient_norms: Mapping[str, Tensor] = field(default_factory=dict)
    """‖∂(weight · term)/∂(h^a, h^b)‖ of each term; empty on a step where they are not measured."""

    def detached(self) -> Losses:
        """The same values without their graph."""
        terms = {name: value.detach() for name, value in self.terms.items()}
        return replace(self, total=self.total.detach(), terms=terms)


class ObjectiveBase(Section):
    """Terms by name; a term that is null or has weight 0 is off."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, SerializeAsAny[Term] | None]

    @model_validator(mode="wrap")
    @classmethod
    def _registered_terms(cls, data: Any, handler: Callable[[Any], ObjectiveBase], info: Any) -> ObjectiveBase:
        """Terms that are not dalr's own are read by the classes that were registered for them."""
        if not isinstance(data, Mapping):
            return handler(data)
        errors: list[InitErrorDetails] = []
        known = {name: value for name, value in data.items() if name in TERMS}
        if info.mode == "json":  # what is handed on counts as Python values, of which a list is no tuple
            known = with_tuples(known)
        for name in (name for name in data if name not in TERMS):
            try:
                known[name] = _read_term(str(name), data[name], as_json=info.mode == "json")
            except ValidationError as error:
                errors += [_inside(str(name), detail) for detail in error.errors()]
            except PydanticCustomError as error:
                errors.append(InitErrorDetails(type=error, loc=(str(name),), input=data[name]))
        try:
            found = handler(known)
        except ValidationError as error:
            errors += [_inside(None, detail) for detail in error.errors()]
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return found

    @classmethod
    def keys(cls) -> list[str]:
        return known_terms()

    @classmethod
    def annotation_of(cls, key: str) -> Any:
        return term_class(key)

    def term(self, name: str) -> Term | None:
        """The term of this name if it is on."""
        return dict(self.active()).get(name)

    def active(self) -> Iterator[tuple[str, Term]]:
        """The terms that are on, with their names: dalr's own first."""
        for name in (*TERMS, *(self.__pydantic_extra__ or {})):
            term = getattr(self, name)
            if term is not None and term.weight > 0:
                yield name, term

    def on(self, kind: BatchKind) -> Iterator[tuple[str, Term]]:
        """The terms that apply to batches of `kind`."""
        return ((name, term) for name, term in self.active() if term.applies_to(kind))

    def sources(self) -> dict[str, str]:
        """Checksum of the source of each term from outside dalr that is on, by name."""
        return {name: source_sha256(type(term)) for name, term in self.active() if name not in TERMS}

    @property
    def candidates(self) -> int | None:
        """Distinct images that the captions of a batch are compared with; None: those of the batch."""
        wanted = [term.candidate_images for _, term in self.active() if term.candidate_images is not None]
        return max(wanted, default=None)

    def needs(self, kind: BatchKind) -> frozenset[Need]:
        """What the terms read on batches of `kind`, beyond the two student views."""
        return frozenset[Need]().union(*(term.needs for _, term in self.on(kind)))

    def all_needs(self) -> frozenset[Need]:
        """What the terms read on batches of any kind."""
        return self.needs("pair") | self.needs("text")

    def __call__(self, inputs: Inputs, kind: BatchKind) -> Losses:
        """Evaluate every term that applies to `kind` and add them up.

        Args:
            inputs: the tensors of a batch; those that `needs(kind)` names must be there.
            kind: `pair` has every term, `text` those that apply to sentences without images.

        Raises:
            ValueError: no term applies to batches of this kind, or a term's input is missing.
        """
        terms = dict(self.on(kind))
        if not terms:
            raise ValueError(f"the objective has no term for {kind} batches")
        values = {name: term(inputs.of_term(name)) for name, term in terms.items()}
        weighted = [terms[name].weight * value for name, value in values.items()]
        return Losses(total=sum(weighted[1:], weighted[0]), terms=values)

    def gradient_norms(self, losses: Losses, h_a: Tensor, h_b: Tensor) -> dict[str, Tensor]:
        """How hard each term pulls at the student: the norm of the gradient of weight · term with respect to its
        sentence vectors h (n, d) of both passes, from which `losses` were computed. The graph is kept.
        """
        import torch

        norms: dict[str, Tensor] = {}
        for name, value in losses.terms.items():
            weight = getattr(self, name).weight
            pulls = torch.autograd.grad(value, (h_a, h_b), retain_graph=True, allow_unused=True)
            flat = [weight * pull.flatten() for pull in pulls if pull is not None]
            norms[name] = torch.cat(flat).norm() if flat else value.detach().new_zeros(())
        return norms


def _read_term(name: str, value: Any, *, as_json: bool) -> Term | None:
    kind = term_class(name)
    if kind is None:
        hint = did_you_mean(name, known_terms())
        what = (
            f"unknown term; {hint}expected one of {', '.join(known_terms())}. A term of your own is registered "
            "with dalr.register_term: name its file with --plugin FILE, or import it before dalr.load_recipe"
        )
        raise PydanticCustomError("unknown_term", "{what}", {"what": what})
    if value is None or isinstance(value, kind):
        return value
    return kind.model_validate_json(json.dumps(value)) if as_json else kind.model_validate(value)


def _inside(name: str | None, detail: Any) -> InitErrorDetails:
    """One error of a part as an error of the whole."""
    where = detail["loc"] if name is None else (name, *detail["loc"])
    # the type and the message were made by pydantic; braces in the message are not placeholders
    kind = PydanticCustomError(detail["type"], "{message}", {"message": detail["msg"]})
    return InitErrorDetails(type=kind, loc=where, input=detail["input"])


if TYPE_CHECKING:

    class Objective(ObjectiveBase):
        """An objective whose recipe keys are the names of terms."""

        def __init__(self, **terms: Term | None) -> None: ...

else:
    Objective = create_model(
        "Objective",
        __base__=ObjectiveBase,
        __doc__="An objective whose recipe keys are the names of terms.",
        __module__=__name__,
        **{name: (term | None, None) for name, term in TERMS.items()},
    )
