"""`dalr train --nproc N`: the same command on N ranks of this machine.

torchrun's own agent starts and watches them; this way round, because its command line gives exit code 1 for
everything, and ours mean something.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from dalr.errors import ConfigError, Problem
from dalr.models.device import usable_cores

_MEANINGFUL = (2, 3, 4, 5, 6, 130, 143)


def process_rank() -> int:
    """The rank that a launcher gave to this process; 0 where there is none."""
    return int(os.environ.get("RANK", "0"))


def launch(arguments: Sequence[str], *, processes: int) -> int:
    """Run `dalr` with `arguments` on so many ranks; returns the exit code of the first rank that failed, or 0.

    Raises:
        ConfigError: already inside of a launcher; more ranks than GPUs.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if "WORLD_SIZE" in os.environ:
        raise ConfigError(Problem(where="--nproc", what="a launcher has started this process; give it the number"))
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and processes > gpus:
        raise ConfigError(Problem(where="--nproc", what=f"{processes} ranks, but this machine has {gpus} GPUs"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // processes)))
    logging.disable(logging.WARNING)  # the agent's; what the ranks have to say, they say themselves
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
        codes = [failure.exitcode for _, failure in sorted(error.failures.items())]
        return next((code for code in codes if code in _MEANINGFUL), 1)
    except SignalException as error:  # passed on to all ranks, which have sealed a checkpoint by now
        return 128 + int(error.sigval)
    return 0
