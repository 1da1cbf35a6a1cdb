"""Which terms are there? Those of dalr, those that a program or a plug-in registers, those of installed packages.

A recipe names terms; it never names code. A term from outside is known after `register_term` has run in this
process (in a script, or in a file given with `--plugin`), or by an entry point of the group `dalr.terms` of an
installed package, which is loaded when a recipe names a term that nobody else knows.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from dalr.errors import ConfigError, Problem
from dalr.io.paths import is_file, regular
from dalr.losses.alignment import CrossModalAlignment, IntraModalAlignment
from dalr.losses.consistency import Consistency
from dalr.losses.contrastive import Grounding, InfoNCE
from dalr.losses.ranking import ConsistencyJS, ListMLE, ListNet
from dalr.losses.term import Term
from dalr.losses.token_level import GlobalToLocal
from dalr.recipe.plugins import from_entry_points

ENTRY_POINTS = "dalr.terms"

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
"""The terms of dalr itself, by their keys in a recipe."""

_registered: dict[str, type[Term]] = {}
_NAME = re.compile(r"[a-z][a-z0-9_]*")

T = TypeVar("T", bound=type)


def register_term(name: str) -> Callable[[T], T]:
    """A class decorator: the term is `objective.NAME` in recipes and overrides from now on.

    ```
    @dalr.register_term("pull")
    class Pull(dalr.Term):
        def value(self, inputs):
            return (1 - torch.nn.functional.cosine_similarity(inputs.h_a, inputs.h_b)).mean()
    ```

    Registering a name again replaces the class, as a notebook's cell does that is run twice.

    Raises:
        ConfigError: not a subclass of `dalr.Term`, a name that no recipe key can have, or one of dalr's own.
    """

    def register(kind: T) -> T:
        problems = []
        if not (isinstance(kind, type) and issubclass(kind, Term)):
            problems.append(f"expected a subclass of dalr.Term, found {kind!r}")
        if not _NAME.fullmatch(name):
            problems.append(f"expected a name of lower-case letters, digits and _, found {name!r}")
        if name in TERMS:
            problems.append(f"{name!r} is a term of dalr; choose another name")
        if problems:
            raise ConfigError([Problem(where=f"register_term({name!r})", what=what) for what in problems])
        _registered[name] = kind
        return kind

    return register


def term_class(name: str) -> type[Term] | None:
    """The class of the term that recipes call `name`; None where nobody knows it.

    Raises:
        ConfigError: an installed package names it and cannot be loaded, or what it names is not a term.
    """
    if name in TERMS:
        return TERMS[name]
    if name not in _registered:
        for found in from_entry_points(ENTRY_POINTS, name):
            register_term(name)(found)
    return _registered.get(name)


def known_terms() -> list[str]:
    """Names of dalr's own terms, then of those registered so far."""
    return [*TERMS, *_registered]


def source_sha256(kind: type[Term]) -> str:
    """What a term from outside computes, as far as its source shows: the checksum of its file, or of its class.

    A class without any source (made at a prompt) is known by its name alone.
    """
    try:
        file = inspect.getsourcefile(kind)
        path = Path(file) if file is not None else None
        known = path is not None and is_file(path, ConfigError)
        source = regular(path).read_bytes() if path is not None and known else inspect.getsource(kind).encode()
    except (OSError, TypeError):
        source = f"{kind.__module__}.{kind.__qualname__}".encode()
    return hashlib.sha256(source).hexdigest()
