r"""Strict text: UTF-8 or a list of the places where it is not; lines end at \n or \r\n and nowhere else.

`str.splitlines` also splits at U+2028, VT and NEL, which shifts every caption after such a character against its
features. Bytes that are not UTF-8 are never replaced: a silently changed sentence is worse than a stop.
"""

from __future__ import annotations

from pathlib import Path

from dalr.errors import DataError, Problem

_BOM = b"\xef\xbb\xbf"


def read_lines(path: Path, *, else_latin_1: bool = False) -> list[str]:
    """The lines of a UTF-8 file without their ends; a byte-order mark at the start is skipped once.

    With `else_latin_1` a file that is not UTF-8 is latin-1, as TREC's official one is.

    Raises:
        DataError: the file is missing or not readable, or some lines are not UTF-8 (`file:line: byte n is 0x..`).
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(Problem(where=str(path), what="no such file")) from None
    except (OSError, ValueError) as error:
        raise DataError(Problem(where=str(path), what=f"cannot be read: {error}")) from None
    data = data.removeprefix(_BOM)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        if not else_latin_1:
            raise DataError(_undecodable(path, data)) from None
        text = data.decode("latin-1")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    return lines


def _undecodable(path: Path, data: bytes) -> list[Problem]:
    problems = []
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = line[error.start]
            what = f"byte {error.start + 1} is 0x{byte:02x}, not UTF-8; convert the file with iconv"
            problems.append(Problem(where=f"{path}:{number}", what=what))
    return problems
