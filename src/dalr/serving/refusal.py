"""What an error looks like to a client: OpenAI's shape, so that its clients show the message."""

from __future__ import annotations

import json
from typing import Any

INVALID = "invalid_request_error"
OVERLOADED = "rate_limit_error"
SERVER = "server_error"


class RefusalError(Exception):
    """A request that is not answered, and why."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    @property
    def body(self) -> dict[str, Any]:
        """The body of the response."""
        kind = OVERLOADED if self.status == 429 else SERVER if self.status >= 500 else INVALID
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def as_bytes(self) -> bytes:
        return json.dumps(self.body, ensure_ascii=False).encode("utf-8", "backslashreplace")
