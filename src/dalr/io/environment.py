"""Which numbers come from the environment? Those of launchers and people, read in one place.

`torchrun`, `accelerate` and job scripts say by variables which process of how many this is. A wrong one is a
configuration error with its name, not a failure somewhere in a library.
"""

from __future__ import annotations

import os
import re

from dalr.errors import ConfigError, Problem

_NUMBER = re.compile(r"[0-9]{1,9}\Z")
LAUNCHED = "DALR_LAUNCHED"
_MEETING = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What several processes need to find each other."""


def whole_number(name: str, default: int, *, least: int = 0) -> int:
    """The value of a variable, or `default` where it is not set or empty.

    Raises:
        ConfigError: it is not a whole number, or less than `least`.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not _NUMBER.match(text) or int(text) < least:
        what = f"expected a whole number of at least {least}, found {text!r:.60}; correct the variable, or unset it"
        raise ConfigError(Problem(where=f"environment variable {name}", what=what))
    return int(text)


def process_rank() -> int:
    """The rank that a launcher gave to this process; 0 where there is none.

    Raises:
        ConfigError: it is no rank of `world_size`.
    """
    rank, world = whole_number("RANK", 0), world_size()
    if rank >= world:
        what = f"rank {rank} of {world}; expected 0 to WORLD_SIZE - 1: correct RANK or WORLD_SIZE, or unset both"
        raise ConfigError(Problem(where="environment variable RANK", what=what))
    return rank


def world_size() -> int:
    """How many processes a launcher has started; 1 where there is none.

    Raises:
        ConfigError: it is no number of processes.
    """
    return whole_number("WORLD_SIZE", 1, least=1)


def local_rank() -> int:
    """Which process of its machine this is, and so which GPU it takes."""
    return whole_number("LOCAL_RANK", 0)


def restarts() -> tuple[int, int]:
    """How often the launcher has started all processes again, and how often it may."""
    return whole_number("TORCHELASTIC_RESTART_COUNT", 0), whole_number("TORCHELASTIC_MAX_RESTARTS", 0)


def rank_patience() -> int:
    """Seconds until a rank that shows no sign of life is given up, although no connection has failed."""
    return whole_number("DALR_RANK_PATIENCE", 120, least=10)


def launched_by_dalr() -> bool:
    """Whether `dalr train --nproc` has started this process, and will say how it ended."""
    return bool(os.environ.get(LAUNCHED))


def require_meeting() -> None:
    """What several processes need to meet, before any of them waits for the others.

    Raises:
        ConfigError: `WORLD_SIZE` stands alone, as a job script may leave it.
    """
    if world_size() == 1:
        return
    missing = [name for name in _MEETING if not os.environ.get(name, "").strip()]
    if missing:
        what = (
            f"{world_size()} processes are to train together, but {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not set; start with torchrun or --nproc, or unset WORLD_SIZE"
        )
        raise ConfigError(Problem(where="environment variable WORLD_SIZE", what=what))
    whole_number("MASTER_PORT", 0, least=1)
