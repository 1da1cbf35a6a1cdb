"""Which tasks are there? The names that `dalr evaluate` knows, and their groups; a new task is added here first."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Literal

from dalr.errors import ConfigError, Problem

STS_TASKS: tuple[str, ...] = ("STS12", "STS13", "STS14", "STS15", "STS16", "STS-B", "SICK-R")

STS_DEV = "sts-b-dev"

TRANSFER_TASKS: tuple[str, ...] = ("MR", "CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC")

GEOMETRY, RETRIEVAL, CAPTIONS = "geometry", "retrieval", "captions"

OWN_TASKS: tuple[str, ...] = (RETRIEVAL, CAPTIONS)
"""Tasks on one's own captions and images, which `--data` does not hold."""

TASKS: tuple[str, ...] = (*STS_TASKS, STS_DEV, *TRANSFER_TASKS, GEOMETRY, RETRIEVAL, CAPTIONS)

Classifier = Literal["senteval", "senteval-fast", "lbfgs"]
"""How transfer tasks are solved (`evaluation/classifier`)."""

MapMethod = Literal["pca", "none"]
"""How the report's map of sentences is made."""

Group = Literal["sts", "transfer"]
"""A group of tasks whose data `dalr data get` fetches."""

GROUPS: Mapping[str, tuple[str, ...]] = {"sts": STS_TASKS, "transfer": TRANSFER_TASKS}


def resolve_tasks(names: Sequence[str]) -> list[str]:
    """Task names with groups replaced by their members, each once, in the order given.

    Raises:
        ConfigError: unknown names, with what they may have been.
    """
    known = {name.casefold(): name for name in (*GROUPS, *TASKS)}
    problems = []
    tasks: dict[str, None] = {}
    for name in names:
        found = known.get(name.casefold())
        if found is None:
            close = difflib.get_close_matches(name.casefold(), known, n=1)
            hint = f"did you mean {known[close[0]]!r}? " if close else ""
            what = f"unknown task {name!r}; {hint}known: {', '.join(known.values())}"
            problems.append(Problem(where="--tasks", what=what))
            continue
        tasks |= dict.fromkeys(GROUPS.get(found, (found,)))
    if problems:
        raise ConfigError(problems)
    return list(tasks)
