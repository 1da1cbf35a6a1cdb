"""What is learned: inputs, one small class per term (T1 to T7), and their weighted sum.

Nothing here needs the rest of `dalr`: an `Objective` is called with `Inputs` (the tensors of a batch, from whatever
encoder) and a kind of batch, and returns `Losses`. Importing this imports no torch; `Inputs`, which holds tensors,
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalr.losses.alignment import CrossModalAlignment, IntraModalAlignment
from dalr.losses.consistency import Consistency
from dalr.losses.contrastive import Grounding, InfoNCE
from dalr.losses.matryoshka import Matryoshka
from dalr.losses.objective import Losses, Objective
from dalr.losses.ranking import ConsistencyJS, ListMLE, ListNet
from dalr.losses.registry import TERMS, register_term
from dalr.losses.term import BatchKind, Need, Term
from dalr.losses.token_level import GlobalToLocal

if TYPE_CHECKING:
    from dalr.losses.inputs import Inputs, Targets, TeacherTokens

__all__ = [
    "TERMS",
    "BatchKind",
    "Consistency",
    "ConsistencyJS",
    "CrossModalAlignment",
    "GlobalToLocal",
    "Grounding",
    "InfoNCE",
    "Inputs",
    "IntraModalAlignment",
    "ListMLE",
    "ListNet",
    "Losses",
    "Matryoshka",
    "Need",
    "Objective",
    "Targets",
    "TeacherTokens",
    "Term",
    "register_term",
]


def __getattr__(name: str) -> object:
    """Import what holds tensors when it is first asked for."""
    if name in ("Inputs", "Targets", "TeacherTokens"):
        from dalr.losses import inputs

        return getattr(inputs, name)
    raise AttributeError(f"module 'dalr.losses' has no attribute {name!r}")
