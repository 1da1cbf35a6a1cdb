"""What did an audit find? Numbers, words, tables and a file that another program reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dalr.evaluation.table import markdown
from dalr.io.atomic import write_text

FORMAT, VERSION = "dalr-audit", 1
_BATCH = 128
"""Of the sentence about a batch: the paper's."""


@dataclass(frozen=True, kw_only=True)
class AuditedCaption:
    """A caption, its own image and the image that it fits best among the others."""

    id: str
    caption: str
    image: str
    score: float
    other: str
    other_score: float
    better: int
    """Other images that it fits at least as well as its own."""
    near: int
    """The same among the nearest neighbours of its image."""
    typical: int
    """Other images that it fits at least as well as a typical caption fits its own, and as well as its own."""

    @property
    def margin(self) -> float:
        return self.score - self.other_score


@dataclass(frozen=True, kw_only=True)
class AuditedImage:
    """An image and how much its captions disagree."""

    id: str
    captions: int
    disagreement: float | None
    """0: all the same; 1: like captions of different images. None for a single caption."""
    near: int
    """Captions that do not tell it from its neighbours."""


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All captions and images of an audit, in the order of the data."""

    source: Mapping[str, str]
    """What was scored, and how."""
    neighbours: int
    weight: float
    captions: tuple[AuditedCaption, ...]
    images: tuple[AuditedImage, ...]

    @property
    def not_told(self) -> float:
        """% of captions that do not tell their image from its neighbours."""
        return 100 * sum(each.near > 0 for each in self.captions) / len(self.captions)

    @property
    def fits_another(self) -> float:
        """% of captions that fit any other image at least as well as their own."""
        return 100 * sum(each.better > 0 for each in self.captions) / len(self.captions)

    @property
    def false_negatives(self) -> int:
        """Pairs of a caption and another image that match as own pairs do."""
        return sum(each.typical for each in self.captions)

    @property
    def with_false_negatives(self) -> float:
        """% of captions that have at least one."""
        return 100 * sum(each.typical > 0 for each in self.captions) / len(self.captions)

    @property
    def in_a_batch(self) -> float:
        """Mean number of false negatives that a batch of captions of different images holds."""
        others = len(self.captions) * (len(self.images) - 1)
        return _BATCH * (min(_BATCH, len(self.images)) - 1) * self.false_negatives / others

    @property
    def unfit(self) -> float:
        """% of captions that fit their own image no better than one by chance."""
        return 100 * sum(each.score <= 0 for each in self.captions) / len(self.captions)

    @property
    def chance(self) -> float:
        """What `not_told` would be if captions said nothing, in %."""
        return 100 * self.neighbours / (self.neighbours + 1)

    def median_disagreement(self) -> float | None:
        found = sorted(each.disagreement for each in self.images if each.disagreement is not None)
        return found[len(found) // 2] if found else None

    def verdict(self) -> list[str]:
        """The findings in words, the first one first."""
        count = self.neighbours
        said = [
            f"{self.not_told:.0f} % of the captions do not tell their image from its neighbours: they fit one of "
            f"the {count} most similar images at least as well (captions that say nothing: {self.chance:.0f} %).",
            f"{self.with_false_negatives:.1f} % of the captions fit another image as well as their own and as well "
            f"as a typical caption fits its own: {self.false_negatives:,} false negatives, "
            f"{self.in_a_batch:.1f} in a batch of {_BATCH} captions of different images.",
        ]
        if (median := self.median_disagreement()) is not None:
            said.append(
                f"Captions of one image disagree by {median:.2f} (median; 0: all the same, 1: like captions of "
                "different images)."
            )
        if self.unfit >= 0.05:
            said.append(
                f"{self.unfit:.1f} % of the captions fit their own image no better than an image by chance: look "
                "for wrong ones among them."
            )
        said.append("A stronger model tells more apart: compare numbers only where the same vectors made them.")
        return said

    def table(self) -> str:
        """A Markdown table of the numbers."""
        median = self.median_disagreement()
        rows = [
            ["captions", f"{len(self.captions):,}"],
            ["images", f"{len(self.images):,}"],
            [f"captions that fit one of the {self.neighbours} nearest images as well", f"{self.not_told:.1f} %"],
            ["captions that fit any other image as well", f"{self.fits_another:.1f} %"],
            ["captions with a false negative", f"{self.with_false_negatives:.1f} %"],
            ["false negatives (pairs)", f"{self.false_negatives:,}"],
            ["captions that fit their image no better than chance", f"{self.unfit:.1f} %"],
            ["median disagreement of an image's captions", "–" if median is None else f"{median:.2f}"],
        ]
        return markdown(["measure", "value"], rows)

    def least_told(self, count: int) -> list[AuditedCaption]:
        """Captions whose best other image is farthest ahead of their own and matches as own pairs do."""
        found = [each for each in self.captions if each.typical]
        return sorted(found, key=lambda each: (each.margin, each.id))[:count]

    def most_divided(self, count: int) -> list[AuditedImage]:
        """Images whose captions disagree most."""
        found = [each for each in self.images if each.disagreement is not None]
        return sorted(found, key=lambda each: (-(each.disagreement or 0.0), each.id))[:count]

    def worst_fit(self, count: int) -> list[AuditedCaption]:
        """Captions that fit their own image least."""
        return sorted(self.captions, key=lambda each: (each.score, each.id))[:count]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "source": dict(self.source),
            "neighbours": self.neighbours,
            "weight_of_the_image": self.weight,
            "verdict": self.verdict(),
            "numbers": {
                "captions": len(self.captions),
                "images": len(self.images),
                "not_told_from_neighbours": self.not_told,
                "fits_another": self.fits_another,
                "with_false_negatives": self.with_false_negatives,
                "false_negatives": self.false_negatives,
                "false_negatives_in_a_batch_of_128": self.in_a_batch,
                "unfit": self.unfit,
                "median_disagreement": self.median_disagreement(),
            },
            "captions": [_rounded(asdict(each)) for each in self.captions],
            "images": [_rounded(asdict(each)) for each in self.images],
        }


def write_audit(audit: Audit, path: Path) -> None:
    """Write all scores; a caption or an image per line, so that a large file can be looked through."""
    tree = audit.as_json()
    lists = {key: tree.pop(key) for key in ("captions", "images")}
    head = json.dumps(tree, indent=1, ensure_ascii=False)[:-2]
    parts = [
        f' "{key}": [\n' + ",\n".join(f"  {json.dumps(each, ensure_ascii=False)}" for each in several) + "\n ]"
        for key, several in lists.items()
    ]
    write_text(path, f"{head},\n" + ",\n".join(parts) + "\n}\n")


def _rounded(record: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in record.items()}
