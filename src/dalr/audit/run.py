"""What does `dalr audit` do? Read pairs and vectors, score every caption with every image, and count."""

from __future__ import annotations

from pathlib import Path

from dalr.audit.match import OtherCaptions, match
from dalr.audit.measure import NEIGHBOURS, measure
from dalr.audit.result import Audit
from dalr.audit.scoring import TextSource, open_scoring
from dalr.data.dataset import read_pairs
from dalr.data.reading import Reading
from dalr.errors import DataError, Problem
from dalr.evaluation.own_photos import OwnSet, own_set
from dalr.features.source import is_matrix, open_features
from dalr.io.console import Console


def audit_pairs(
    pairs: Path,
    features: Path,
    text: TextSource,
    *,
    image_ids: Path | None = None,
    reading: Reading | None = None,
    neighbours: int = NEIGHBOURS,
    console: Console | None = None,
) -> Audit:
    """Audit the captions of `pairs` with the image vectors in `features`.

    Args:
        image_ids: names the rows of a `features` matrix; None: the pairs file does.

    Raises:
        DataError, ConfigError, CorruptFileError, ModelFileError: as the messages say.
    """
    console = console or Console()
    found = _read(pairs, reading or Reading())
    store = open_features(features, image_ids or (pairs if is_matrix(features) else None))
    images = found.vectors(store)
    total = len(found.captions)
    with console.bar("encode", total, "sentence") as bar:
        scoring = open_scoring(text, found, images, store, lambda done, _: bar.update(done))
    console.detail(scoring.about)
    captions = OtherCaptions.of(scoring.vectors, found.owner, len(found.names))
    scores = match(scoring.evidence, captions, str(pairs))
    source = {
        "pairs": str(pairs),
        "features": str(features),
        "captions_by": text.name,
        "image_evidence": scoring.about,
    }
    with console.bar("compare", total, "caption") as bar:
        return measure(
            found, images, scores, neighbours=neighbours, source=source, progress=lambda done: bar.update(done)
        )


def _read(path: Path, reading: Reading) -> OwnSet:
    problems: list[Problem] = []
    pairs = read_pairs(path, problems, {}, on_empty="drop", reading=reading)
    if problems:
        raise DataError(problems)
    found = own_set(pairs, str(path), "audited")
    if len(found.names) < 2:
        raise DataError(Problem(where=str(path), what=f"{len(found.names)} image; an audit compares at least 2"))
    return found
