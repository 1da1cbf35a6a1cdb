"""How does `dalr train --nproc N` start the same command on N ranks of this machine?

torchrun's own agent starts and watches them; this way round, because its command line gives exit code 1 for
everything, and ours mean something.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from dalr.errors import ConfigError, Problem
from dalr.io.console import tell
from dalr.io.environment import LAUNCHED
from dalr.models.device import usable_cores

_MEANINGFUL = (2, 3, 4, 5, 6, 130, 143)
_FIRST_RANK_SECONDS = 30.0


def leave_it_to_the_first_rank() -> None:
    """Wait for the end that the launcher gives to all ranks when the first has said what all of them find.

    The one that ended before it would take its words away. Returns if the first rank found nothing wrong.
    """
    time.sleep(_FIRST_RANK_SECONDS)


def launch(arguments: Sequence[str], *, processes: int) -> int:
    """Run `dalr` with `arguments` on so many ranks; returns the exit code of the first rank that failed, or 0.

    Raises:
        ConfigError: already inside of a launcher; more ranks than GPUs.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from dalr.training.liveness import advice

    if "WORLD_SIZE" in os.environ:
        raise ConfigError(
            Problem(
                where="--nproc",
                what="this process was started by a launcher; give the number of processes to the launcher",
            )
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and processes > gpus:
        raise ConfigError(Problem(where="--nproc", what=f"{processes} ranks, but this machine has {gpus} GPUs"))
    os.environ[LAUNCHED] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    logging.disable(logging.ERROR)  # the agent's; what the ranks have to say, they say themselves
    config = LaunchConfig(
        run_id="dalr",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "dalr", *arguments)
    except ChildFailedError as error:
        failures = [failure for _, failure in sorted(error.failures.items())]
        for failure in failures:
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # with which the agent ends the others
                who = f"rank {failure.local_rank} of {processes}"
                tell(f"error: {who} was killed by {failure.signal_name()}{_cause(failure.exitcode)}; {advice()}")
        return next((failure.exitcode for failure in failures if failure.exitcode in _MEANINGFUL), 1)
    except SignalException as error:  # passed on to all ranks, which have sealed a checkpoint by now
        return 128 + int(error.sigval)
    return 0


def _cause(code: int) -> str:
    return " (by the system, if memory was short)" if code == -signal.SIGKILL else ""
