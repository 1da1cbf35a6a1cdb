"""What is learned: views, one small class per term (T1 to T7), and their weighted sum.

Nothing here needs the rest of `dalr`: an `Objective` is called with `Views` (the tensors of a batch, from whatever
encoder) and a kind of batch, and returns `Losses`. Importing this imports no torch; `Views`, which holds tensors,
does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dalr.objectives.alignment import CrossModalAlignment, IntraModalAlignment
from dalr.objectives.consistency import Consistency
from dalr.objectives.contrastive import Grounding, InfoNCE
from dalr.objectives.objective import TERMS, BatchKind, Losses, Objective
from dalr.objectives.ranking import ConsistencyJS, ListMLE, ListNet
from dalr.objectives.term import Need, Term
from dalr.objectives.token_level import GlobalToLocal
from dalr.objectives.widths import Widths

if TYPE_CHECKING:
    from dalr.objectives.views import TeacherTokens, Views

__all__ = [
    "TERMS",
    "BatchKind",
    "Consistency",
    "ConsistencyJS",
    "CrossModalAlignment",
    "GlobalToLocal",
    "Grounding",
    "InfoNCE",
    "IntraModalAlignment",
    "ListMLE",
    "ListNet",
    "Losses",
    "Need",
    "Objective",
    "TeacherTokens",
    "Term",
    "Views",
    "Widths",
]


def __getattr__(name: str) -> object:
    """Import what holds tensors when it is first asked for."""
    if name in ("TeacherTokens", "Views"):
        from dalr.objectives import views

        return getattr(views, name)
    raise AttributeError(f"module 'dalr.objectives' has no attribute {name!r}")
