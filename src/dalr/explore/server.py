"""How is the page served? By uvicorn on a socket that is bound before any model is read.

So a port that is taken is an error of the first second, nobody can take it in between, and a browser that is opened
early waits for the page.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dalr.errors import ConfigError, Problem, install

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_GRACE_SECONDS = 2
_UPLOADS = "GRADIO_TEMP_DIR"
_REASONS = {
    errno.EADDRINUSE: "the port is in use; choose another --port, or 0 for any free one",
    errno.EACCES: "this port needs the administrator's permission; choose one above 1023",
    errno.EADDRNOTAVAIL: "no address of this machine; expected 127.0.0.1, or 0.0.0.0 for all addresses",
}


def require_gradio() -> Any:
    """gradio, which draws the page.

    Raises:
        ConfigError: not installed.
    """
    try:
        import gradio
    except ImportError:
        what = f"the page is drawn by gradio, which is not installed; {install('app')}"
        raise ConfigError(Problem(where="explore", what=what)) from None
    return gradio


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Raises:
        ConfigError: the port is taken, or the address is none of this machine's.
    """
    where = f"--host {host} --port {port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            Problem(where=where, what=f"no address of this machine: {error.strerror or error}")
        ) from None
    try:
        if os.name == "posix":  # where it lets a server start again at once, and not take another one's port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        what = _REASONS.get(error.errno or 0, f"cannot be opened: {error.strerror}")
        raise ConfigError(Problem(where=where, what=what)) from None
    return bound


def address_of(bound: socket.socket, host: str) -> str:
    """What to type into a browser on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(host, host)
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{bound.getsockname()[1]}/"


def guarded(app: Any, host: str) -> Any:
    """The same application, which on a loopback address answers to no other name: a web page elsewhere could
    otherwise have its own name lead here and read what only this machine may."""
    if host not in LOOPBACK:
        return app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return TrustedHostMiddleware(app, allowed_hosts=[*LOOPBACK, "[::1]"], www_redirect=False)


@contextmanager
def own_uploads() -> Iterator[None]:
    """Have gradio keep uploads in a folder of this process alone, which goes with it.

    Its own choice is one that all users of a machine share, where the first to come shuts the others out.
    """
    before = os.environ.get(_UPLOADS)
    with tempfile.TemporaryDirectory(prefix="dalr-explore-", ignore_cleanup_errors=True) as folder:
        os.environ[_UPLOADS] = folder
        try:
            yield
        finally:
            os.environ.pop(_UPLOADS)
            os.environ.update({_UPLOADS: before} if before is not None else {})


@contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM stop as Ctrl-C does, with all that is open put away, from here on and while serving.

    uvicorn sends the signal again to whoever listened before it.
    """

    def terminated(number: int, _: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def serve(app: Any, bound: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM, which raise KeyboardInterrupt when open requests are answered."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE_SECONDS, ws="none"
    )
    uvicorn.Server(config).run(sockets=[bound])
