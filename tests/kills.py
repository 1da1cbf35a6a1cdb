"""A process that is gone in the middle: every change of the file system from the n-th on fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHANGES = ("open", "replace", "rename", "mkdir", "rmdir", "unlink", "chmod", "fsync")


class Killed(BaseException):
    """As SIGKILL: nothing that the program does about it."""


@contextmanager
def killed_at(change: int) -> Iterator[Callable[[], int]]:
    """Killed at this change of the file system, and at every one after it; gives the number of changes so far."""
    real = {name: getattr(os, name) for name in CHANGES}
    count = 0

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count >= change:
                raise Killed
            return real[name](*arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            patch.setattr(os, name, wrapped(name))
        yield lambda: count
