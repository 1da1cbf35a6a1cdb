"""How the tests here make a service; none of them opens a port to be asked."""

from __future__ import annotations

from starlette.testclient import TestClient

from dalr.serving.app import build_app
from dalr.serving.limits import Limits
from dalr.serving.service import ServeOptions, Service

LIMITS = Limits(max_rows=5, max_chars=200, max_payload_mb=1, max_waiting=8, max_batch=4)


def serve(options: ServeOptions) -> tuple[Service, TestClient]:
    """A service that is loaded, and a client of it."""
    service = Service(options)
    service.load()
    return service, TestClient(build_app(service))
