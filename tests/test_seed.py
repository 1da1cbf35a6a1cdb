"""Random numbers by name: a stream depends on (seed, name, step) and on nothing else."""

from __future__ import annotations

import random

import numpy as np
import torch

from dalr.seed import derive_seed, generator, seed_everything


def test_seeds_are_the_same_on_every_machine_and_in_every_release() -> None:
    assert derive_seed(0) == 0x5FECEB66FFC86F38 >> 1, "the beginning of sha256 of 0"
    first, second = (generator(0, "ties", 5).permutation(50).tolist() for _ in range(2))
    assert first == second


def test_seeds_fit_into_63_bits_and_differ_by_seed_name_and_step() -> None:
    seeds = [derive_seed(s, name, step) for s in range(5) for name in ("a", "b") for step in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, "1") != derive_seed(11)
    assert derive_seed(0, "a", "b") != derive_seed(0, "ab")


def test_a_stream_leaves_the_global_generators_alone() -> None:
    seed_everything(3)
    expected = (random.random(), np.random.rand(), torch.rand(1).item())
    seed_everything(3)
    generator(3, "ties", 0).permutation(10)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_everything_is_seeded() -> None:
    def draw(seed: int) -> tuple[float, float, float]:
        seed_everything(seed)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw(1) == draw(1)
    assert all(one != other for one, other in zip(draw(1), draw(2), strict=True))
