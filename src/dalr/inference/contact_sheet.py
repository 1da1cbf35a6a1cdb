"""The answers of a search as one page: thumbnails where the image files are found, captions where not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dalr.features.thumbnails import thumbnail
from dalr.inference.searcher import Hit
from dalr.io.atomic import remedy, write_text
from dalr.io.paths import resolve
from dalr.version import VERSION

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="dalr {{ version }}"><title>{{ query }}</title><style>
body { font: 16px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
  color: #1d1d1f; background: #fff }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; list-style: none;
  padding: 0 }
li { border: 1px solid #d9d9de; border-radius: 8px; overflow: hidden; padding: .75rem }
img { display: block; width: 100%; height: 12rem; object-fit: cover; border-radius: 4px }
p { margin: .5rem 0 0 } .place { color: #5b5b66; font-size: .85rem; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { color: #eee; background: #18181b } li { border-color: #3a3a42 }
  .place { color: #b4b4be } }
</style></head><body><h1>{{ query }}</h1><ol>
{% for hit, thumbnail in cards %}<li>
{% if thumbnail %}<img alt="{{ hit.captions[0] if hit.captions else hit.id }}" src="{{ thumbnail }}">{% endif %}
<p class="place">{{ hit.rank }} · {{ "%.3f"|format(hit.score) }} · {{ hit.id }}</p>
{% for caption in hit.captions %}<p>{{ caption }}</p>{% endfor %}</li>
{% endfor %}</ol></body></html>
"""


def write_contact_sheet(path: Path, query: str, hits: Sequence[Hit], images: Path | None) -> int:
    """Write the page; how many images were found below `images` and are shown."""
    from jinja2 import Environment

    root = resolve(images) if images is not None else None
    cards = [(hit, thumbnail(root, hit.image) if root is not None else None) for hit in hits]
    page = Environment(autoescape=True).from_string(_PAGE).render(query=query, cards=cards, version=VERSION)
    with remedy("choose another --html file"):
        write_text(path, page)
    return sum(shown is not None for _, shown in cards)
