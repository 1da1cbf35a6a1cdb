"""Hides the packages that `HIDDEN` names, as if they were not installed; child processes find it by PYTHONPATH."""

import os
import sys
from importlib.machinery import PathFinder

HIDDEN = set(os.environ.get("HIDDEN", "").split())


class _WithoutThem:
    """The finder of installed packages, which neither finds these nor knows their versions."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):  # type: ignore[no-untyped-def]
        return None if fullname.partition(".")[0] in HIDDEN else PathFinder.find_spec(fullname, path, target)

    @staticmethod
    def find_distributions(*context):  # type: ignore[no-untyped-def]
        return (each for each in PathFinder.find_distributions(*context) if each.name not in HIDDEN)

    invalidate_caches = PathFinder.invalidate_caches


sys.meta_path = [_WithoutThem if each is PathFinder else each for each in sys.meta_path]
