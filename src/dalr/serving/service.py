"""What is served: an encoder, and the collection of its run where there is one.

The port is open before the model is loaded, so that `/health` can say that it is not ready yet. Embeddings are
served as soon as the encoder is there, then images are searched, then captions, whose vectors are made on the first
start and come from the cache later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from dalr.data.reading import Reading
from dalr.errors import ConfigError, DalrError, Problem
from dalr.inference.encode import EncodeOptions
from dalr.inference.encoders import Encoded, OnLong, RowEncoder, TextEncoder, open_text_encoder
from dalr.inference.precision import shortened
from dalr.inference.searcher import Hit, Searcher, Within
from dalr.io.console import Console
from dalr.io.paths import is_dir, resolve
from dalr.recipe.paths import expand
from dalr.serving.batching import Batcher
from dalr.serving.limits import Limits
from dalr.serving.metrics import Metrics
from dalr.serving.refusal import RefusalError

Part = Literal["embeddings", "images", "captions"]
PARTS: tuple[Part, ...] = ("embeddings", "images", "captions")
_SEARCHES_WAITING = 256


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """The options of `dalr serve`, apart from where it listens."""

    model: str
    name: str | None = None
    """What clients call the model; None takes it from `model`."""
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    on_long: OnLong = "truncate"
    threads: int | None = None
    search: bool | None = None
    """Whether the collection of the run is searched; None searches it if there is one."""
    pairs: Path | None = None
    """Captions to search in place of the run's; `features` are then the vectors of their images."""
    features: Path | None = None
    image_ids: Path | None = None
    reading: Reading | None = None
    heads: Path | None = None
    vision: str | None = None
    """The model that made the image vectors, where their store does not say."""
    limits: Limits = field(default_factory=Limits)

    @property
    def served_name(self) -> str:
        if self.name is not None:
            return self.name
        folder = expand(self.model)
        return resolve(folder).name if is_dir(folder) else self.model


class _StoppedError(Exception):
    """The service ends while it is still loading."""


class Service:
    """The encoder, its queue, and the search; `load` makes them, `close` ends them."""

    def __init__(self, options: ServeOptions, console: Console | None = None) -> None:
        if options.encode.precision not in ("fp32", "bf16"):
            what = f"a service computes in fp32 or bf16, found {options.encode.precision}"
            raise ConfigError(Problem(where="--precision", what=what))
        self.options = options
        self.console = console or Console(quiet=True)
        self.metrics = Metrics()
        self.started = time.time()
        self.name = options.served_name
        self.missing: dict[Part, str] = {}
        """Parts that this service does not have, and why."""
        self.ready: set[Part] = set()
        self.ending = False
        """Whether somebody asked it to stop; accepted requests are still answered."""
        self.stopping = False
        """Whether it also takes no more rows."""
        self.failure: BaseException | None = None
        self.dim = 0
        self.encoder: RowEncoder | None = None
        self._batcher: Batcher | None = None
        self._searcher: Searcher | None = None
        self._searches = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search")
        self._searching = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.metrics.gauge("dalr_waiting_rows", "Rows that wait for the model.", self._waiting)
        self.metrics.gauge("dalr_ready", "1 when everything is loaded.", lambda: float(self.is_ready))

    @property
    def is_ready(self) -> bool:
        """Whether all that this service has is loaded."""
        return not self.stopping and {*self.ready, *self.missing} == set(PARTS)

    def start(self, *, on_failure: Callable[[], None], on_ready: Callable[[], None]) -> None:
        """Load in a thread, and call one of these there; the reason of a failure is in `failure`."""

        def work() -> None:
            try:
                self.load()
                on_ready()
            except _StoppedError:
                pass
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                self.failure = error
                on_failure()

        self._thread = threading.Thread(target=work, name="load", daemon=True)
        self._thread.start()

    def load(self) -> None:
        """Load the encoder, then what is searched.

        Raises:
            ConfigError, DataError, ModelFileError: the encoder cannot be loaded, or not what --search asks for.
        """
        options = self.options
        config = options.encode.encoder_config(options.model)
        bf16 = options.encode.precision == "bf16"
        encoder = open_text_encoder(config, device=options.encode.device, bf16=bf16)
        self.dim = encoder.encode(["a"]).vectors.shape[1]
        self.encoder = encoder
        with self._lock:
            if self.stopping:
                return
            self._batcher = Batcher(encoder.encode, options.limits, self.metrics, begin=self._use_threads)
        self.ready.add("embeddings")
        self._open_search(encoder)

    def close(self) -> None:
        """Refuse new requests, and return when the accepted ones are answered."""
        with self._lock:
            self.stopping = True
        if self._batcher is not None:
            self._batcher.close()
        self._searches.shutdown()
        if self._thread is not None:
            self._thread.join()

    def require(self, part: Part) -> None:
        """Raises RefusalError where this part is not there (404), or not yet (503)."""
        if part in self.missing:
            raise RefusalError(404, f"this service does not search {part}: {self.missing[part]}", code="no_search")
        if part not in self.ready:
            what = f"{part} are being loaded; /health says when they are ready"
            raise RefusalError(503, what, code="loading", retry_after=5)

    def require_dimension(self, dim: int | None) -> None:
        """Raises RefusalError if the vectors have no so many numbers."""
        if dim is not None and not 1 <= dim <= self.dim:
            what = f"dimensions: expected 1 to {self.dim}, the dimension of {self.name}, found {dim}"
            raise RefusalError(400, what, param="dimensions")

    @property
    def max_tokens(self) -> int | None:
        return self.encoder.max_tokens if self.encoder is not None else None

    def submit(self, rows: list[str]) -> Future[Encoded]:
        """Vectors of rows, as the encoder gives them before any Normalize module."""
        self.require("embeddings")
        assert self._batcher is not None
        return self._batcher.submit(rows)

    def finished(self, vectors: Float32[np.ndarray, "n d"], dim: int | None) -> Float32[np.ndarray, "n e"]:
        """Vectors as `SentenceTransformer.encode` gives them; the first `dim` numbers of each at length 1."""
        assert self.encoder is not None
        wanted = self.options.encode.normalize
        unit = dim is not None or (self.encoder.normalized if wanted is None else wanted)
        return shortened(vectors, dim=dim, unit=unit)

    def find(self, vectors: Float32[np.ndarray, "1 d"], k: int, within: Within) -> Future[list[Hit]]:
        """What is nearest to a sentence, by its vector before any Normalize module."""
        searcher = self.searcher(within)
        return self._search(lambda: searcher.search_vectors(vectors, k=k, within=within)[0])

    def find_by_image(self, image: str | bytes, k: int, within: Within) -> Future[list[Hit]]:
        """What is nearest to an image: its key in the collection, or the bytes of a file; never a path.

        Raises:
            RefusalError: the collection has no image of this key.
        """
        searcher = self.searcher(within)
        if isinstance(image, str) and not searcher.knows(image):
            what = f"image_id: no image {image!r:.200} in the collection"
            raise RefusalError(404, what, param="image_id", code="unknown_image")
        vision = self.options.vision
        return self._search(lambda: searcher.search_image(image, k=k, within=within, vision=vision))

    def searcher(self, within: Within) -> Searcher:
        """The search, if what it finds is there."""
        self.require(within)
        assert self._searcher is not None
        return self._searcher

    def _search(self, work: Callable[[], list[Hit]]) -> Future[list[Hit]]:
        with self._lock:
            if self.stopping:
                raise RefusalError(503, "the service is stopping", code="stopping", retry_after=5)
            if self._searching >= _SEARCHES_WAITING:
                what = f"{self._searching} searches are waiting; try again later"
                raise RefusalError(429, what, code="overloaded", retry_after=1)
            self._searching += 1
            future = self._searches.submit(work)
        future.add_done_callback(self._searched)
        return future

    def _searched(self, _: Future[list[Hit]]) -> None:
        with self._lock:
            self._searching -= 1

    def _open_search(self, encoder: RowEncoder) -> None:
        if self.options.search is False:
            if self.options.pairs is not None:
                raise ConfigError(Problem(where="--no-search", what="--pairs names what to search; leave one out"))
            self.missing |= dict.fromkeys(PARTS[1:], "it was started with --no-search")
            return
        try:
            if not isinstance(encoder, TextEncoder):
                what = "a text tower has no run to search"
                raise ConfigError(Problem(where=self.options.model, what=what))
            options = self.options
            searcher = Searcher(
                options.model,
                pairs=options.pairs,
                features=options.features,
                image_ids=options.image_ids,
                reading=options.reading,
                heads=options.heads,
                device=options.encode.device,
                console=self.console,
                progress=self._stop_if_asked,
            )
        except DalrError as error:
            if self.options.pairs is not None:
                raise
            self._without(PARTS[1:], error)
            return
        self._searcher = searcher
        self._prepare("images")
        self._prepare("captions")

    def _prepare(self, within: Within) -> None:
        assert self._searcher is not None
        try:
            self._searcher.prepare(within)
        except DalrError as error:
            self._without((within,), error)
        else:
            self.ready.add(within)

    def _without(self, parts: tuple[Part, ...], error: DalrError) -> None:
        """Go on without a search that nobody asked for.

        Raises:
            DalrError: --search asked for it.
        """
        if self.options.search:
            raise error
        reason = str(error.problems[0]) if error.problems else str(error)
        self.missing |= dict.fromkeys(parts, reason)

    def _stop_if_asked(self, *_: int) -> None:
        if self.stopping:
            raise _StoppedError

    def _use_threads(self) -> None:
        """Of the thread that encodes: OpenMP keeps the number for each thread."""
        if self.options.threads is not None:
            import torch

            torch.set_num_threads(self.options.threads)

    def _waiting(self) -> float:
        return float(self._batcher.waiting()) if self._batcher is not None else 0.0
