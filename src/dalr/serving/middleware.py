"""What surrounds every request: a limit on its body, counts, and an answer where something of ours fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dalr.io.console import tell
from dalr.serving.metrics import Metrics
from dalr.serving.refusal import RefusalError

_DRAINED = 4
"""So many times the limit is read and dropped, because a client that is still sending does not see the answer."""
_OTHER = "other"


class Surrounding:
    """The application with all of that.

    Args:
        max_bytes: of a body.
        paths: those that are counted by their name.
        ending: whether the service takes no further requests; clients are then told that their connection closes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        metrics: Metrics,
        paths: frozenset[str],
        ending: Callable[[], bool],
    ) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.metrics = metrics
        self.paths = paths
        self.ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self.max_bytes, self.ending)
        start = time.perf_counter()
        try:
            await self._answer(scope, exchange)
        finally:
            path = scope["path"] if scope["path"] in self.paths else _OTHER
            self.metrics.requests.add(path=path, status=str(exchange.status))
            self.metrics.seconds.add(time.perf_counter() - start, path=path)

    async def _answer(self, scope: Scope, exchange: _Exchange) -> None:
        try:
            if (stated := _content_length(scope)) is not None and stated > self.max_bytes:
                raise too_large(self.max_bytes)
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            return  # in the middle of its request; nobody hears an answer
        except RefusalError as refusal:
            await exchange.refuse(refusal)
        except Exception as error:  # noqa: BLE001 - one request, and not the service, fails
            what = " ".join(f"{type(error).__name__}: {error}".split())
            tell(f"error while answering {scope['path']:.100}: {what:.300}")
            if exchange.status == _NOT_YET:
                await exchange.refuse(internal())


_NOT_YET = 499
"""As nginx says of a client that left before its answer began."""


class _Exchange:
    """One request and its response."""

    def __init__(self, receive: Receive, send: Send, max_bytes: int, ending: Callable[[], bool]) -> None:
        self._receive = receive
        self._send = send
        self.max_bytes = max_bytes
        self.ending = ending
        self.status = _NOT_YET
        self.received = 0
        self.more = True

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.more = message.get("more_body", False)
        else:
            self.more = False
        if self.received > self.max_bytes:
            raise too_large(self.max_bytes)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status == 413:
                await self._drain()
            if self.status == 413 or self.ending():
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await self._send(message)

    async def refuse(self, refusal: RefusalError) -> None:
        """Answer in the application's place."""
        body = refusal.as_bytes()
        headers: list[Any] = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *((name.lower().encode(), value.encode()) for name, value in refusal.headers.items()),
        ]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        while self.more and self.received <= _DRAINED * self.max_bytes:
            message = await self._receive()
            self.received += len(message.get("body", b""))
            self.more = message["type"] == "http.request" and message.get("more_body", False)


def too_large(max_bytes: int) -> RefusalError:
    what = f"the body has more than the {max_bytes / 2**20:g} MB allowed; send fewer rows per request"
    return RefusalError(413, what, code="payload_too_large")


def internal() -> RefusalError:
    """What a client hears of a failure of ours; the operator reads the rest."""
    return RefusalError(500, "internal error; the log of the service says more", code="internal_error")


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None
