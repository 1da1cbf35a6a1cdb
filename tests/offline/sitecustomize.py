"""Refuses every connection but loopback; found by child processes of the suite through PYTHONPATH."""

import socket

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex
_getaddrinfo = socket.getaddrinfo
_LOOPBACK = ("127.", "::1", "localhost")


class NetworkBlockedError(OSError):
    """A test tried to leave this machine."""


def _check(address: object) -> None:
    host = address[0] if isinstance(address, tuple) else address
    if isinstance(host, bytes):
        host = host.decode()
    if isinstance(host, str) and (host.startswith(("/", "\0")) or host.startswith(_LOOPBACK)):
        return
    raise NetworkBlockedError(f"the suite is offline: connection to {address!r} refused")


def _blocked_connect(self: socket.socket, address: object) -> None:
    _check(address)
    _connect(self, address)


def _blocked_connect_ex(self: socket.socket, address: object) -> int:
    _check(address)
    return _connect_ex(self, address)


def _blocked_getaddrinfo(host: object, *args: object, **kwargs: object) -> object:
    if host is not None:
        _check((host,))
    return _getaddrinfo(host, *args, **kwargs)


socket.socket.connect = _blocked_connect
socket.socket.connect_ex = _blocked_connect_ex
socket.getaddrinfo = _blocked_getaddrinfo
