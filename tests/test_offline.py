"""The suite leaves this machine nowhere: not in this process, not in a child, and loopback still works."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

ELSEWHERE = ("192.0.2.1", 80)  # TEST-NET-1: routed nowhere
IN_A_CHILD = """
import socket, sys
def attempt(action):
    try:
        action()
    except OSError as error:
        return str(error)
    return "connected"
print(attempt(lambda: socket.create_connection(("192.0.2.1", 80), timeout=0.2)))
print(attempt(lambda: socket.getaddrinfo("example.com", 443)))
print(attempt(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=5).close()))
"""


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a listener on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(20)

        def accept() -> None:
            with contextlib.suppress(OSError):
                listener.accept()[0].close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(timeout=30)


def test_connections_are_refused_here() -> None:
    with socket.socket() as client, pytest.raises(OSError, match="the suite is offline"):
        client.connect(ELSEWHERE)
    with socket.socket() as client, pytest.raises(OSError, match="the suite is offline"):
        client.connect_ex(ELSEWHERE)


def test_names_are_not_looked_up_here() -> None:
    with pytest.raises(OSError, match="the suite is offline"):
        socket.getaddrinfo("example.com", 443)


def test_loopback_is_allowed_here(server: int) -> None:
    socket.create_connection(("127.0.0.1", server), timeout=5).close()


def test_child_processes_are_offline_too_but_for_loopback(server: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CHILD, str(server)], capture_output=True, text=True, timeout=60, check=True
    )
    elsewhere, lookup, loopback = done.stdout.splitlines()
    assert "the suite is offline" in elsewhere
    assert "the suite is offline" in lookup
    assert loopback == "connected"
