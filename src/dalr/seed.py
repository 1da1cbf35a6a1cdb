"""Where do random numbers come from? Every consumer derives its own stream from (seed, name, step).

A stream that depends on nothing else makes terms pure, gives equal draws on all ranks, and lets a resumed run
draw what the uninterrupted one would have drawn, without saving generator states.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream that `names` names under `seed`; equal on every machine."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """The random generator of the stream that `names` names under `seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *names)))


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, numpy and torch, before any module is built."""
    import random

    import torch

    random.seed(derive_seed(seed, "python"))
    np.random.seed(derive_seed(seed, "numpy") % 2**32)
    torch.manual_seed(derive_seed(seed, "torch"))
