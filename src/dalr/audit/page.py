"""The page of an audit: the numbers in words, then the worst cases with their photos."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from dalr.audit.result import Audit, AuditedCaption, AuditedImage
from dalr.features.thumbnails import thumbnail
from dalr.io.atomic import remedy, write_text
from dalr.io.paths import resolve
from dalr.report.page import Block, Card, Cards, Page, Photo, Prose, Section, TableBlock, render
from dalr.report.tables import Column, Group, Row, Table, count, formatted, number, table

_SIDE = 240
_CAPTIONS_SHOWN = 6
_CAPTION_LETTERS = 300


def write_audit_page(audit: Audit, out: Path, *, images: Path | None = None, worst: int = 24) -> int:
    """Write the page; how many photos were found below `images` and are shown.

    Raises:
        StorageError: the file cannot be written.
    """
    cases = _Cases(audit, resolve(images) if images is not None else None)
    first, *rest = audit.verdict()
    page = Page(
        title="Do the captions tell their images apart?",
        lead=Prose(text=first),
        legend=(),
        sections=(
            Section(name="numbers", title="Numbers", blocks=(*_said(rest), *_numbers(audit))),
            *cases.sections(worst),
        ),
    )
    with remedy("choose another --html file"):
        write_text(out, render(page))
    return cases.shown()


def _said(sentences: Iterable[str]) -> Iterable[Block]:
    return [Prose(text=sentence) for sentence in sentences]


def _numbers(audit: Audit) -> Iterable[Block]:
    near = f"captions that fit one of the {audit.neighbours} nearest images at least as well as their own"
    cells = {
        "captions": count(len(audit.captions)),
        "images": count(len(audit.images)),
        f"{near}, %": number(audit.not_told, 1),
        "captions that fit any other image at least as well, %": number(audit.fits_another, 1),
        "captions with a false negative, %": number(audit.with_false_negatives, 1),
        "false negatives (pairs)": count(audit.false_negatives),
        "captions that fit their image no better than chance, %": number(audit.unfit, 1),
        "median disagreement of the captions of an image": number(audit.median_disagreement(), 2),
    }
    rows = tuple(Row(head=head, cells=(cell,)) for head, cell in cells.items())
    found: Table = table(
        name="numbers",
        caption="All captions and images",
        head="measure",
        columns=[Column(name="value")],
        groups=[Group(rows=rows)],
        notes=[
            "A score of 0 is a pair by chance, 1 a typical caption with its own image. "
            f"The image itself counts {100 * audit.weight:.0f} %, its other captions the rest: "
            "the weight with which captions find their own images best.",
            "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in audit.source.items()),
        ],
    )
    yield TableBlock(table=found, sortable=False)


class _Cases:
    """Cards of the worst cases."""

    def __init__(self, audit: Audit, root: Path | None) -> None:
        self.audit, self.root = audit, root
        self.captions: dict[str, list[AuditedCaption]] = defaultdict(list)
        for each in audit.captions:
            self.captions[each.image].append(each)
        self._source = cache(lambda name: thumbnail(root, name, side=_SIDE) if root is not None else None)
        self._shown: set[str] = set()

    def shown(self) -> int:
        return len(self._shown)

    def sections(self, worst: int) -> Iterable[Section]:
        kinds = (
            (
                "ambiguous",
                "Captions that fit another image better",
                "Left the image that the caption was written for, right the one that it fits best. In training the "
                "right one is a false negative. Near the top there may also be captions that are simply wrong.",
                [self._ambiguous(each) for each in self.audit.least_told(worst)],
            ),
            (
                "divided",
                "Images whose captions disagree",
                "Their captions have as little in common as those of different images: each tells another part, or "
                "one belongs elsewhere.",
                [self._divided(each) for each in self.audit.most_divided(worst)],
            ),
            (
                "unfit",
                "Captions that fit their own image least",
                "Where a caption is wrong, it is here; unusual images are here too.",
                [self._unfit(each) for each in self.audit.worst_fit(worst)],
            ),
        )
        for name, title, about, cards in kinds:
            if cards:
                yield Section(name=name, title=title, blocks=(Prose(text=about), Cards(cards=tuple(cards))))

    def _ambiguous(self, each: AuditedCaption) -> Card:
        own = self._photo(each.image, f"own {formatted(each.score)}")
        other = self._photo(
            each.other, f"other {formatted(each.other_score)}", captions=self.captions[each.other][:1]
        )
        return Card(title=_cut(each.caption), photos=(own, other), detail=each.id)

    def _divided(self, each: AuditedImage) -> Card:
        photo = self._photo(each.id, f"disagreement {formatted(each.disagreement or 0)}")
        told = tuple(_cut(caption.caption) for caption in self.captions[each.id][:_CAPTIONS_SHOWN])
        return Card(title="", photos=(photo,), lines=told, detail=each.id)

    def _unfit(self, each: AuditedCaption) -> Card:
        others = [caption for caption in self.captions[each.image] if caption.id != each.id]
        photo = self._photo(each.image, f"own {formatted(each.score)}", captions=others[:2])
        return Card(title=_cut(each.caption), photos=(photo,), detail=each.id)

    def _photo(self, image: str, label: str, *, captions: Iterable[AuditedCaption] = ()) -> Photo:
        source = self._source(image)
        if source is not None:
            self._shown.add(image)
        return Photo(name=image, source=source, label=label, lines=tuple(_cut(each.caption) for each in captions))


def _cut(caption: str) -> str:
    return caption if len(caption) <= _CAPTION_LETTERS else f"{caption[:_CAPTION_LETTERS]}…"
