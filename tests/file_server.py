"""A web server on loopback that serves given bytes, with ranges, and misbehaves on request."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What is served, and how it misbehaves."""

    files: dict[str, bytes]
    """Path without the leading slash -> content."""
    ranges: bool = True
    tags: bool = True
    """Whether an ETag names the version."""
    cuts: deque[int] = field(default_factory=deque)
    """Each response takes one and breaks off after so many bytes of its body."""
    statuses: deque[int] = field(default_factory=deque)
    """Each response takes one and answers with it."""
    redirects: Mapping[str, str] = field(default_factory=dict)
    stated_sha256: str | None = None
    """Stated with a redirect, as the hub does."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range) of each request."""
    address: str = ""

    @property
    def ranges_asked(self) -> list[str | None]:
        return [span for _, span in self.asked]


@contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[FileServer]:
    """A running server of `files`; its fields may be changed while it runs."""
    served = FileServer(files=dict(files))

    class Handler(_Handler):
        state = served

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    state: FileServer

    def do_GET(self) -> None:
        state = self.state
        path = self.path.lstrip("/")
        span = self.headers.get("Range")
        state.asked.append((path, span))
        if state.statuses:
            self._say(state.statuses.popleft(), b"")
        elif path in state.redirects:
            self.send_response(302)
            self.send_header("Location", state.redirects[path])
            if state.stated_sha256:
                self.send_header("X-Linked-ETag", f'"{state.stated_sha256}"')
            self.end_headers()
        elif path not in state.files:
            self._say(404, b"no such page")
        else:
            self._send(state.files[path], span)

    def _send(self, content: bytes, span: str | None) -> None:
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        if self.headers.get("If-Range") not in (None, tag):
            span = None
        start = int(span.removeprefix("bytes=").removesuffix("-")) if span and self.state.ranges else None
        if start is not None and start >= len(content):
            self._say(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers = {"ETag": tag} if self.state.tags else {}
        if start is None:
            self._say(200, content, headers)
        else:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._say(206, content[start:], headers)

    def _say(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.state.cuts.popleft() if self.state.cuts and status < 300 else len(body)
        self.wfile.write(body[:cut])

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""
