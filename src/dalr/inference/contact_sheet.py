"""The answers of a search as one page: thumbnails where the image files are found, captions where not."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.features.decoding import ImageRefusedError, locate, read_image
from dalr.inference.searcher import Hit
from dalr.io.atomic import remedy, write_text
from dalr.io.paths import resolve
from dalr.version import VERSION

if TYPE_CHECKING:
    from PIL.Image import Image

_THUMBNAIL = 320
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
    return sum(thumbnail is not None for _, thumbnail in cards)


def thumbnail(root: Path, name: str) -> str | None:
    """A small JPEG of an image below the resolved folder `root`, for a page; None without a usable file."""
    try:
        return data_uri(read_image(locate(root, name)))
    except ImageRefusedError:
        return None


def data_uri(image: Image) -> str:
    """A small JPEG of an image, as a `src` that needs no file; makes the image itself small."""
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    data = io.BytesIO()
    image.save(data, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
