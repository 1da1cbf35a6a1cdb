"""What does a run get most wrong? Held-out captions that find other images first, and graded pairs out of place.

Ranks are those of `dalr evaluate`: among the held-out images of one part alone, so that the list explains its
recall. The validation images are shown unless the test images are asked for, which are for the final numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from dalr.errors import ConfigError, Problem
from dalr.evaluation.graded import load_graded_pairs
from dalr.evaluation.metrics import require_usable, unit_rows
from dalr.evaluation.own_photos import OwnSet, RunPhotos, photos_of
from dalr.evaluation.results import WorstPair
from dalr.evaluation.retrieval import retrieval_score
from dalr.evaluation.runs import recipe_of_run
from dalr.evaluation.similarity import pair_cosines, score_pairs, worst_pairs
from dalr.evaluation.sts import ScoredPairs, load_sts
from dalr.explore.models import Model
from dalr.models.heads import ground


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The images whose mistakes are shown, as the first run has them."""

    images: OwnSet
    seen_by: tuple[tuple[str, int], ...] = ()
    """Other models, and how many of these images they were trained on; of test images, also chosen by."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A caption that finds another image before its own."""

    caption: str
    image: str
    rank: int
    """Of its own image, from 1."""
    score: float
    """Cosine with its own image."""
    first: str
    """The image that is ranked first."""
    first_score: float
    first_captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Captions of held-out images that one model ranks worst."""

    model: str
    pairs: tuple[Mistake, ...]
    wrong: int
    """Captions whose own image is not first."""
    captions: int
    images: int

    @property
    def r1(self) -> float:
        """Recall at 1 of sentence to image, in %."""
        return 100 * (1 - self.wrong / self.captions)


@dataclass(frozen=True, kw_only=True)
class Misjudged:
    """Graded pairs that one model ranks farthest from where people rank them."""

    model: str
    task: str
    pairs: tuple[WorstPair, ...]
    spearman: float
    """× 100."""
    count: int


def held_out(models: Sequence[Model], *, test: bool = False) -> HeldOut:
    """The validation images of the first run, or its test images.

    Raises:
        ConfigError: it has none. DataError: its data cannot be read, or has lost test images.
    """
    photos = photos_of(models[0].run)
    found = photos.require_test() if test else photos.validation
    if found is None:
        what = "the run has no validation images (data.holdout.validation_fraction)"
        if photos.test is not None:
            what += f"; --test shows the {len(photos.test.names)} images that it held out for a test"
        raise ConfigError(Problem(where=models[0].name, what=what))
    seen = ((model.name, _seen(photos_of(model.run), found, test=test)) for model in models[1:])
    return HeldOut(images=found, seen_by=tuple((name, count) for name, count in seen if count))


def _seen(photos: RunPhotos, found: OwnSet, *, test: bool) -> int:
    """How many of another run's images a run has seen; validation images choose the weights of both."""
    return len(photos.seen(found.names)) if test else len({*found.names} & {*photos.training.names})


def mistakes(model: Model, found: OwnSet, *, k: int) -> Mistakes:
    """The `k` captions whose own image a model ranks worst; of equal ranks, the widest gap of scores first.

    Raises:
        NumericsError: vectors of the model are NaN or infinite.
        DataError: an image without a vector.
    """
    searcher = model.searcher
    vectors = searcher.encoder.encode(found.captions).vectors
    require_usable(vectors, "retrieval")
    sentences, images = ground(
        searcher.heads(), sentences=vectors, images=found.vectors(searcher.collection.required_store())
    )
    ranks = retrieval_score(sentences, images, found.owner).text_ranks
    own, best, best_score = _first_others(sentences, images, found.owner)
    order = np.lexsort((own - best_score, -ranks))
    captions_of: dict[int, list[str]] = {}
    for caption, image in zip(found.captions, found.owner.tolist(), strict=True):
        captions_of.setdefault(image, []).append(caption)
    return Mistakes(
        model=model.name,
        pairs=tuple(
            Mistake(
                caption=found.captions[row],
                image=found.names[found.owner[row]],
                rank=int(ranks[row]) + 1,
                score=float(own[row]),
                first=found.names[best[row]],
                first_score=float(best_score[row]),
                first_captions=tuple(captions_of[int(best[row])]),
            )
            for row in order[:k].tolist()
            if ranks[row] > 0
        ),
        wrong=int((ranks > 0).sum()),
        captions=len(found.captions),
        images=len(found.names),
    )


_BLOCK = 2_048


def _first_others(
    sentences: Float[np.ndarray, "captions g"],
    images: Float[np.ndarray, "images g"],
    owner: Int64[np.ndarray, " captions"],
) -> tuple[Float[np.ndarray, " captions"], Int64[np.ndarray, " captions"], Float[np.ndarray, " captions"]]:
    """Of each caption: the cosine with its own image, the nearest other image, and the cosine with that."""
    sentences, images = unit_rows(sentences), unit_rows(images)
    own = np.empty(len(sentences))
    best, best_score = np.empty(len(sentences), np.int64), np.empty(len(sentences))
    for start in range(0, len(sentences), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(sentences)))
        cosines = sentences[rows] @ images.T
        here = np.arange(len(rows))
        own[rows] = cosines[here, owner[rows]]
        cosines[here, owner[rows]] = -np.inf
        best[rows] = cosines.argmax(axis=1)
        best_score[rows] = cosines[here, best[rows]]
    return own, best, best_score


def graded_pairs(
    models: Sequence[Model], *, named: Path | None = None, data: Path | None = None, test: bool = False
) -> ScoredPairs | None:
    """The graded sentence pairs to look at; None where there are none.

    Args:
        named: a file of your own, or a folder of such files.
        data: a SentEval folder: STS-B dev, or its test with `test`. Without either, what the first run was
            validated on.

    Raises:
        DataError: files missing, or with lines that are not theirs.
    """
    if named is not None:
        return load_graded_pairs(named)
    if data is not None:
        return load_sts(data, "STS-B" if test else "sts-b-dev")
    recipe = recipe_of_run(models[0].run)
    if recipe.validation is None or recipe.validation.data is None:
        return None
    path = recipe.data.path(recipe.validation.data)
    if recipe.validation.kind == "sts-b":
        return load_sts(path, "STS-B" if test else "sts-b-dev")
    return load_graded_pairs(path) if recipe.validation.kind == "tsv" else None


def misjudged(model: Model, pairs: ScoredPairs, *, k: int) -> Misjudged:
    """The `k` pairs whose place by the model's cosine is farthest from their place by people's scores; each once.

    Raises:
        NumericsError: vectors of the model are NaN or infinite, or all alike.
    """
    vectors = model.searcher.encoder.encode(pairs.sentences()).vectors
    require_usable(vectors, pairs.name)
    worst = worst_pairs(pairs, pair_cosines(pairs, vectors), most=2 * k)
    distinct = {(pair.first, pair.second): pair for pair in reversed(worst)}
    shown = sorted(distinct.values(), key=lambda pair: -abs(pair.rank_error))[:k]
    return Misjudged(
        model=model.name,
        task=pairs.name,
        pairs=tuple(shown),
        spearman=score_pairs(pairs, vectors),
        count=len(pairs.gold),
    )
