"""The page: what a browser shows, as gradio's blocks. Everything that it shows is made in the modules beside it.

No request leaves the machine: no analytics, the reader's own fonts, no links, no sharing. The page has no file that
a browser may ask for by its path.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dalr.errors import DalrError
from dalr.evaluation.sts import ScoredPairs
from dalr.explore import cards
from dalr.explore.mistakes import HeldOut, misjudged, mistakes
from dalr.explore.models import Model
from dalr.explore.queries import by_file, by_key, by_sentence
from dalr.explore.server import require_gradio
from dalr.inference.collection import Collection

_LISTED = 2_000
"""Images in the list to choose from; of more, a browser becomes slow. Any other is named by its key."""
_EXAMPLES = 4
_HOUR = 3_600
_FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
_UPLOAD = "64mb"
"""As large as an image file may be (`features/decoding.py`)."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What the page shows, and the HTML of each answer; it works without gradio."""

    models: Sequence[Model]
    k: int
    images: Path | None = None
    vision: str | None = None
    held_out: HeldOut | DalrError
    """Or why there is none."""
    graded: ScoredPairs | None = None

    def sentence(self, text: str) -> str:
        return self._shown(lambda: cards.answers(by_sentence(self.models, text, k=self.k), self._image_of))

    def image(self, key: str | None) -> str:
        if not key:
            return cards.message("Choose an image, or upload one.")
        return self._shown(lambda: cards.image_answers(by_key(self.models, key, k=self.k), self._image_of))

    def upload(self, path: str | None) -> str:
        if path is None:
            return ""
        file = Path(path)
        shown = self._shown(
            lambda: cards.image_answers(
                by_file(self.models, file, k=self.k, vision=self.vision), self._image_of, file
            )
        )
        return shown.replace(f"--image {file}", file.name)  # an error names the copy that the server keeps

    @cached_property
    def mistakes(self) -> str:
        return self._shown(self._mistakes)

    @cached_property
    def misjudged(self) -> str:
        return self._shown(self._misjudged)

    @cached_property
    def heading(self) -> str:
        files = cards.count_files(self._collection, self.images) if self.images is not None else None
        return cards.heading(self.models, files)

    def listed(self) -> list[tuple[str, str]]:
        """Images to choose from: what is shown of each, and its key."""
        names = self._collection.images[:_LISTED]
        captions = self._collection.captions_of
        return [(f"{name}: {captions[number][0]}", name) for number, name in enumerate(names)]

    def examples(self) -> list[str]:
        """Captions to try: of held-out images where there are any."""
        held_out = self.held_out
        captions = held_out.images.captions if isinstance(held_out, HeldOut) else self._collection.pairs.captions
        distinct = list(dict.fromkeys(caption.strip() for caption in captions))
        return random.Random(0).sample(distinct, min(_EXAMPLES, len(distinct)))

    def another(self) -> str:
        return random.choice(self._collection.images)

    def _mistakes(self) -> str:
        if isinstance(self.held_out, DalrError):
            raise self.held_out
        images = self.held_out.images
        found = [mistakes(model, images, k=self.k) for model in self.models]
        return cards.mistakes(found, self.held_out, self._image_of)

    def _misjudged(self) -> str:
        pairs = self.graded
        judged = [misjudged(model, pairs, k=self.k) for model in self.models] if pairs is not None else []
        return cards.misjudged(judged, pairs)

    @property
    def _collection(self) -> Collection:
        return self.models[0].searcher.collection

    @cached_property
    def _image_of(self) -> cards.Thumbnail:
        return cards.thumbnails(self.images)

    def _shown(self, make: Callable[[], str]) -> str:
        """An answer, or the error in its place: a wrong question does not end the server."""
        try:
            return make()
        except DalrError as error:
            return cards.message(str(error))


def blocks(page: Page) -> Any:
    """The page as gradio's blocks; one question is answered at a time, as the models take all cores."""
    gr = require_gradio()
    alone: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "models", "api_visibility": "private"}
    with gr.Blocks(title="dalr explore", analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as shown:
        gr.HTML(page.heading)
        with gr.Tab("Sentence"):
            text = gr.Textbox(label="Sentence", submit_btn="Search", max_lines=2, autofocus=True)
            tried = gr.Examples([[each] for each in page.examples()], inputs=text, label="Captions to try")
            found = gr.HTML()
            text.submit(page.sentence, text, found, **alone)
            tried.load_input_event.then(page.sentence, text, found, **alone)
        with gr.Tab("Image"):
            with gr.Row(equal_height=True):
                key = gr.Dropdown(
                    page.listed(),
                    value=None,
                    label="Image of the collection (type to filter)",
                    allow_custom_value=True,
                    scale=5,
                    min_width=320,
                )
                other = gr.Button("Random image", scale=1, min_width=90)
                upload = gr.UploadButton("Upload an image", file_types=["image"], scale=1, min_width=90)
            like = gr.HTML()
            key.input(page.image, key, like, **alone)
            other.click(page.another, None, key, api_visibility="private").then(page.image, key, like, **alone)
            upload.upload(page.upload, upload, like, **alone)
        with gr.Tab("Mistakes") as tab:
            wrong = gr.HTML(cards.message("Computing …"))
            apart = gr.HTML()
            tab.select(lambda: page.mistakes, None, wrong, **alone).then(
                lambda: page.misjudged, None, apart, **alone
            )
    return shown


def app(page: Page) -> Any:
    """The page as an application that a server runs."""
    gr = require_gradio()
    import fastapi

    theme = gr.themes.Default(primary_hue="indigo", **_FONTS)
    return gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        blocks(page),
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        max_file_size=_UPLOAD,
        theme=theme,
        css=cards.style(),
    )
