"""What is learned: views, one small class per term (T1 to T7), and their weighted sum."""

from dalr.objectives.objective import TERMS, BatchKind, Losses, Objective
from dalr.objectives.term import Need, Term

__all__ = ["TERMS", "BatchKind", "Losses", "Need", "Objective", "Term"]
