"""How does a file come from an address? In as many pieces as the connection needs.

What has arrived lies in `NAME.part` and stays there when a connection breaks or the process ends; the next try
asks for the rest by HTTP Range. A server that ignores the range sends everything, and then everything is taken.
The file gets its name only when it is complete and `refuse` accepts it. Attempts are counted: what a
second try cannot change (404, no such host) is said at once. Only the standard library is needed for this.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalr.errors import DataError, Problem, StorageError
from dalr.io.atomic import apply_umask, storage_errors, sync_file, sync_folder, write_text
from dalr.io.paths import exists, is_file
from dalr.io.sealed import file_sha256

ATTEMPTS = 4
TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 18
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_SHA256 = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes that there will be, if the server said so."""


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What the headers of a response say."""

    start: int
    """Where in the file the body begins."""
    total: int | None
    version: str | None
    """A strong ETag or a date, with which the rest of the same version can be asked for."""
    sha256: str | None
    """Of the whole file, where the server states it (the Hugging Face hub does)."""


class UnreachableError(DataError):
    """The server cannot be reached, or does not get to the end of its answer."""


class _BrokenError(Exception):
    """This attempt failed, another one may not."""


def download(
    address: str,
    path: Path,
    *,
    refuse: Callable[[Path], str | None] = lambda _: None,
    progress: Progress = lambda done, total: None,
    attempts: int = ATTEMPTS,
    wait: float = 1.0,
    most_bytes: int | None = None,
) -> None:
    """Fetch `address` into `path`, continuing `path`.part if it is there.

    Args:
        refuse: says what is wrong with the complete file, or None. A file put together of two tries is fetched
            once more from its beginning before that is an error.
        wait: seconds before the second attempt; doubled before each further one.
        most_bytes: a longer file is refused as soon as that shows.

    Raises:
        UnreachableError: no such server, or the connection keeps breaking.
        DataError: the server refuses, or the content is refused.
        StorageError: the disk refuses.
    """
    _require_http(address)
    part = path.with_name(f"{path.name}.part")
    reason = ""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(attempts):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            pieced = _fetch(address, part, progress, most_bytes)
        except _BrokenError as broken:
            reason = str(broken)
            continue
        refused = refuse(part)
        if refused is None:
            _put_in_place(part, path)
            return
        discard(part)
        if not pieced:
            raise DataError(Problem(where=address, what=refused))
        reason = refused
    begun = exists(part, StorageError)
    kept = f"; {part.name} holds what has arrived, and the next start continues from there" if begun else ""
    raise UnreachableError(Problem(where=address, what=f"{reason} (after {attempts} attempts){kept}"))


def discard(part: Path) -> None:
    """Forget a part file."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def _fetch(address: str, part: Path, progress: Progress, most_bytes: int | None) -> bool:
    """Bring `part` to its full length; whether it was put together of more than one response."""
    have = part.stat().st_size if is_file(part, StorageError) else 0
    try:
        with _open(address, part, have) as (response, answer):
            if answer.start not in (0, have):
                discard(part)
                raise _BrokenError(f"asked for the bytes from {have} on, got others")
            _take(response, part, answer, progress, sys.maxsize if most_bytes is None else most_bytes)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            return _refused(address, part, have, error)
    except urllib.error.URLError as error:
        if isinstance(error.reason, socket.gaierror):
            what = f"no such host, or no connection to the internet ({error.reason.strerror})"
            raise UnreachableError(Problem(where=address, what=what)) from None
        raise _BrokenError(f"no connection: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenError(f"the connection failed: {error or type(error).__name__}") from None
    _require_complete(part, answer)
    return answer.start > 0


@contextmanager
def _open(address: str, part: Path, have: int) -> Iterator[tuple[Any, _Answer]]:
    """A response that sends the file from byte `have` on, or all of it, and what its headers say."""
    headers = {"Accept-Encoding": "identity", "User-Agent": "dalr"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if is_file(_version_file(part), StorageError):
            headers["If-Range"] = _version_file(part).read_text()
    redirects = _Redirects()
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT_SECONDS) as response:
        yield response, _read_headers(response, have, redirects.stated)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http(s) alone and keeps the checksum that a redirecting hub states."""

    stated: str = ""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        try:
            _require_http(newurl)
        except DataError:
            fp.close()
            raise
        self.stated = headers.get("X-Linked-ETag") or self.stated
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _require_http(address: str) -> None:
    if not address.startswith(("http://", "https://")):
        raise DataError(Problem(where=address, what="expected an address that begins with https:// or http://"))


def _read_headers(response: Any, have: int, stated: str) -> _Answer:
    headers = response.headers
    tag = headers.get("ETag", "")
    sha256 = (headers.get("X-Linked-ETag") or stated).strip('"')
    length = headers.get("Content-Length", "")
    start, total = 0, int(length) if length.isdigit() else None
    if response.status == http.client.PARTIAL_CONTENT:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        start, total = (int(span[1]), int(span[2])) if span else (-1, None)
    return _Answer(
        start=start,
        total=total,
        version=tag if tag.startswith('"') else headers.get("Last-Modified"),
        sha256=sha256 if _SHA256.fullmatch(sha256) else None,
    )


def _take(response: Any, part: Path, answer: _Answer, progress: Progress, most_bytes: int) -> None:
    """Append the body to `part`, or start it again where the body starts at 0."""
    _require_small(response, part, answer.total or 0, most_bytes)
    with storage_errors(part):
        if answer.version is not None:
            write_text(_version_file(part), answer.version)
        file = open(part, "ab" if answer.start else "wb")  # noqa: SIM115 - reading must not count as storage
    with file:
        done = answer.start
        progress(done, answer.total)
        while chunk := response.read(_CHUNK):
            _require_small(response, part, done + len(chunk), most_bytes)
            with storage_errors(part):
                file.write(chunk)
            done += len(chunk)
            progress(done, answer.total)


def _require_small(response: Any, part: Path, size: int, most_bytes: int) -> None:
    if size > most_bytes:
        discard(part)
        raise DataError(Problem(where=response.url, what=f"expected at most {most_bytes} bytes, found {size}"))


def _refused(address: str, part: Path, have: int, error: urllib.error.HTTPError) -> bool:
    """A status of 400 or more: nothing left to fetch, to be tried again, or an error."""
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return True
        discard(part)
        raise _BrokenError(f"the part file of {have} bytes does not match the file on the server")
    if error.code in _TRANSIENT:
        raise _BrokenError(f"the server answers {error.code} {error.reason}")
    raise DataError(Problem(where=address, what=f"the server answers {error.code} {error.reason}"))


def _require_complete(part: Path, answer: _Answer) -> None:
    found = part.stat().st_size
    if answer.total is not None and found < answer.total:
        raise _BrokenError(f"cut short: {found} of {answer.total} bytes arrived")
    if answer.total is not None and found > answer.total:
        discard(part)
        raise _BrokenError(f"{found} bytes arrived where {answer.total} were announced")
    if answer.sha256 is not None:
        digest = file_sha256(part)
        if digest != answer.sha256:
            discard(part)
            raise _BrokenError(f"sha256 is {digest[:12]}..., the server stated {answer.sha256[:12]}...")


def _put_in_place(part: Path, path: Path) -> None:
    with storage_errors(path):
        apply_umask(part)
        sync_file(part)
        os.replace(part, path)
        _version_file(part).unlink(missing_ok=True)
        sync_folder(path.parent)


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")
