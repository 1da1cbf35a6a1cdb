"""Which addresses does the service have? Each is a few lines here; the work is in the modules beside it.

There is no page of documentation at `/docs`: FastAPI's loads its scripts from another host. `/openapi.json` has the
description for programs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from dalr.errors import ConfigError, DalrError, DataError, shown
from dalr.inference.searcher import Hit
from dalr.serving.embeddings import EmbeddingsRequest, embeddings_body, require_model
from dalr.serving.limits import refuse_cut
from dalr.serving.metrics import CONTENT_TYPE
from dalr.serving.middleware import Surrounding, internal
from dalr.serving.refusal import RefusalError
from dalr.serving.search import SearchRequest
from dalr.serving.service import PARTS, Service
from dalr.version import VERSION

PATHS = ("/", "/health", "/metrics", "/openapi.json", "/search", "/v1/embeddings", "/v1/models")
_LARGE = 1 << 18
"""Bytes or numbers from which JSON is read and written beside the loop, which meanwhile serves others."""
_Body = TypeVar("_Body", bound=BaseModel)
_Result = TypeVar("_Result")


def build_app(service: Service) -> ASGIApp:
    """The application over a service that is loaded, or is being loaded."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="dalr",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    _add_errors(app)
    _add_embeddings(app, service)
    _add_search(app, service)
    _add_state(app, service)
    return Surrounding(
        app,
        max_bytes=service.options.limits.max_bytes,
        metrics=service.metrics,
        paths=frozenset(PATHS),
        ending=lambda: service.ending,
    )


def _add_embeddings(app: FastAPI, service: Service) -> None:
    limits, options = service.options.limits, service.options

    @app.post("/v1/embeddings", openapi_extra=_described(EmbeddingsRequest))
    async def embeddings(request: Request) -> Response:
        """Vectors of a string or of a list of strings."""
        asked = await _read(request, EmbeddingsRequest)
        require_model(asked.model, service.name, options.model)
        rows = limits.rows_of(asked.input)
        service.require("embeddings")
        service.require_dimension(asked.dimensions)
        encoded = await _unless_disconnected(request, service.submit(rows))
        if options.on_long == "error":
            refuse_cut(encoded.cut, service.max_tokens)
        vectors = service.finished(encoded.vectors, asked.dimensions)

        def body() -> bytes:
            return embeddings_body(
                vectors, model=service.name, encoding=asked.encoding_format, tokens=sum(encoded.tokens)
            )

        content = body() if vectors.size < _LARGE else await run_in_threadpool(body)
        headers = {"x-dalr-cut-rows": str(len(encoded.cut))} if encoded.cut else {}
        return Response(content, media_type="application/json", headers=headers)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model that is served."""
        return {"object": "list", "data": [_model(service)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """The same by its name."""
        require_model(name, service.name, options.model)
        return _model(service)


def _add_search(app: FastAPI, service: Service) -> None:
    limits = service.options.limits

    async def found(request: Request, asked: SearchRequest) -> JSONResponse:
        asked.check(limits)
        service.searcher(asked.within)
        if asked.q is not None:
            encoded = await _unless_disconnected(request, service.submit([asked.q]))
            hits = service.find(encoded.vectors, asked.k, asked.within)
        elif asked.image is not None:
            image = await run_in_threadpool(asked.image_bytes)
            hits = service.find_by_image(image, asked.k, asked.within)
        else:
            hits = service.find_by_image(asked.image_id or "", asked.k, asked.within)
        answers: list[Hit] = await _unless_disconnected(request, hits)
        return JSONResponse({"model": service.name, "in": asked.within, "hits": [hit.as_json() for hit in answers]})

    @app.get("/search", openapi_extra=_queried(SearchRequest))
    async def search_by_query(request: Request) -> JSONResponse:
        """Images or captions by a sentence, or by the key of an image."""
        given: dict[str, Any] = dict(request.query_params)
        if "k" in given:
            with suppress(ValueError):
                given["k"] = int(given["k"])
        with _refused():
            asked = SearchRequest.model_validate(given)
        return await found(request, asked)

    @app.post("/search", openapi_extra=_described(SearchRequest))
    async def search_by_body(request: Request) -> JSONResponse:
        """The same, or by an image file."""
        return await found(request, await _read(request, SearchRequest))


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/")
    async def root() -> dict[str, Any]:
        """What is here."""
        return {"service": "dalr", "version": VERSION, "model": service.name, "paths": PATHS[1:]}

    @app.get("/health")
    async def health() -> JSONResponse:
        """200 when everything is loaded, else 503."""
        status = "stopping" if service.stopping else "ready" if service.is_ready else "loading"
        parts = {part: service.missing.get(part, "ready" if part in service.ready else "loading") for part in PARTS}
        return JSONResponse({"status": status, "model": service.name, **parts}, 200 if status == "ready" else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts, for Prometheus."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(RefusalError)
    async def refuse(_: Request, refusal: RefusalError) -> Response:
        return _refusal(refusal)

    @app.exception_handler(DalrError)
    async def fail(_: Request, error: DalrError) -> Response:
        of_client = isinstance(error, DataError | ConfigError)
        return _refusal(RefusalError(400 if of_client else 500, str(error)))

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path:.200}: {error.detail}; here are {', '.join(PATHS)}"
        refusal = _refusal(RefusalError(error.status_code, what))
        refusal.headers.update(error.headers or {})
        return refusal

    @app.exception_handler(Exception)
    async def crash(_: Request, __: Exception) -> Response:
        return _refusal(internal())  # `Surrounding` reports it


def _refusal(refusal: RefusalError) -> Response:
    return Response(refusal.as_bytes(), refusal.status, refusal.headers, media_type="application/json")


async def _read(request: Request, kind: type[_Body]) -> _Body:
    """The body of a request.

    Raises:
        RefusalError: not JSON, or not of this kind.
    """
    stated = request.headers.get("content-type", "")
    if "json" not in stated.lower():
        what = f"expected Content-Type: application/json, found {stated or 'none'!r:.100}"
        raise RefusalError(415, what)
    body = await request.body()
    with _refused():
        if len(body) < _LARGE:
            return kind.model_validate_json(body)
        return await run_in_threadpool(kind.model_validate_json, body)


class _refused:  # noqa: N801 - a context manager
    """What pydantic finds, as a refusal of the first problem."""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "body"
            found = "" if first["type"] in ("missing", "json_invalid") else f", found {shown(first['input'])}"
            raise RefusalError(400, f"{where}: {first['msg']}{found}", param=where) from None


async def _unless_disconnected(request: Request, future: Future[_Result]) -> _Result:
    """The result, unless the client leaves first: its rows then leave the queue."""
    result = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request.receive))
    both: set[asyncio.Future[Any]] = {result, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            future.cancel()
            raise RefusalError(499, "the client disconnected")
        return result.result()
    finally:
        gone.cancel()


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _model(service: Service) -> dict[str, Any]:
    encoder = service.encoder
    known = {} if encoder is None else {"dimension": service.dim, "max_tokens": encoder.max_tokens}
    if encoder is not None and (fingerprint := encoder.source.get("sha256")) is not None:
        known["sha256"] = fingerprint
    created = int(service.started)
    return {"id": service.name, "object": "model", "created": created, "owned_by": "dalr", **known}


def _described(kind: type[BaseModel]) -> dict[str, Any]:
    """The body of a request in the description for programs; it is read by hand, for errors in OpenAI's shape."""
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}
    }


def _queried(kind: type[BaseModel]) -> dict[str, Any]:
    parameters = kind.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in parameters.items()
            if name != "image"
        ]
    }
