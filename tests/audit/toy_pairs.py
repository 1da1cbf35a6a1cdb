"""Images with a meaning, and captions that tell it: what an audit finds in them is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dalr.evaluation.own_photos import OwnSet


@dataclass(frozen=True, kw_only=True)
class ToyPairs:
    found: OwnSet
    vectors: np.ndarray
    images: np.ndarray


def toy_pairs(images: int = 40, captions: int = 3, *, noise: float = 0.3, twins: bool = False) -> ToyPairs:
    """Captions and images are two linear views of one meaning; with `twins` the first two images have the same."""
    random = np.random.default_rng(0)
    meaning = random.normal(size=(images, 6))
    if twins:
        meaning[1] = meaning[0]
    owner = np.repeat(np.arange(images), captions)
    noisy = meaning[owner] + noise * random.normal(size=(len(owner), 6))
    names = tuple(f"{number:03d}.jpg" for number in range(images))
    return ToyPairs(
        found=OwnSet(
            where="toys",
            split="audited",
            captions=tuple(f"caption {row}" for row in range(len(owner))),
            caption_ids=tuple(f"{names[image]}#{row % captions}" for row, image in enumerate(owner.tolist())),
            names=names,
            owner=owner,
        ),
        vectors=(noisy @ random.normal(size=(6, 8))).astype(np.float32),
        images=(meaning @ random.normal(size=(6, 12))).astype(np.float32),
    )
