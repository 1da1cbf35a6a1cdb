"""How does the service listen, and how does it stop?

The port is taken first: that it is in use is said before a model is loaded. After SIGTERM or Ctrl-C no connection
is accepted any more, requests that were accepted are answered, and the process ends with 0. A second signal ends it
at once.
"""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from dalr.errors import ConfigError, Problem
from dalr.io.console import Console
from dalr.models.absent import require_there
from dalr.serving.app import build_app
from dalr.serving.service import PARTS, ServeOptions, Service

STOP_SECONDS = 30
"""How long accepted requests may take after a signal to stop."""
_BACKLOG = 2048
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(options: ServeOptions, *, host: str, port: int, console: Console) -> None:
    """Serve until a signal to stop.

    Raises:
        ConfigError: the port cannot be had, or options do not fit together.
        ConfigError, DataError, ModelFileError: the model cannot be served.
    """
    require_there(options.model)
    service = Service(options, console)
    with _listening(host, port) as listener:
        address = _address(listener)
        console.say(f"loading {options.model}; {address} answers /health meanwhile")
        config = uvicorn.Config(
            build_app(service),
            log_level="critical",
            access_log=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=STOP_SECONDS,
            ws="none",
            lifespan="on",
        )
        server = _Server(config, service)
        service.start(on_failure=server.stop, on_ready=lambda: _announce(service, address, console))
        server.run(sockets=[listener])
    if service.failure is not None:
        raise service.failure
    if server.force_exit:
        raise SystemExit(128 + server.asked[-1])


def _announce(service: Service, address: str, console: Console) -> None:
    has = [part for part in PARTS if part in service.ready]
    console.say(f"serving {service.name} ({', '.join(has)}) on {address}; Ctrl-C stops")
    for reason in dict.fromkeys(service.missing.values()):
        if service.options.search is None:
            console.say(f"note: without search of {_lacking(service, reason)}: {reason}")


def _lacking(service: Service, reason: str) -> str:
    return " and ".join(part for part, each in service.missing.items() if each == reason)


class _Server(uvicorn.Server):
    """uvicorn, with our exit codes: its own end by the signal itself, after the same graceful stop."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self.asked: list[int] = []

    def stop(self) -> None:
        """End as after a signal."""
        self.service.ending = self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked.append(number)
        self.force_exit = self.should_exit
        self.stop()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that is bound.

    Raises:
        ConfigError: the port is in use or not allowed, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        what = f"no address of this machine: {host!r:.100} ({error}); use 127.0.0.1, or 0.0.0.0 for all networks"
        raise ConfigError(Problem(where="--host", what=what)) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except OSError as error:
        listener.close()
        raise ConfigError(_refused(host, port, error)) from None
    with listener:
        yield listener


def _refused(host: str, port: int, error: OSError) -> Problem:
    if error.errno == errno.EADDRINUSE:
        return Problem(where="--port", what=f"{port} is in use on {host}; stop what uses it, or name another port")
    if error.errno in (errno.EACCES, errno.EPERM):
        return Problem(where="--port", what=f"{port} is not allowed for this user; name one from 1024 to 65535")
    return Problem(where="--host", what=f"cannot listen on {host}:{port}: {error.strerror}")


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
