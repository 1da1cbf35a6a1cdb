"""How much may one request ask for? What is beyond is refused before any work, with the limit in the message.

The status says what to do: 413 and 422, send less or shorter rows; 429, send the same again later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from dalr.data.rows import is_blank
from dalr.errors import ConfigError, Problem, has_odd_characters, shown
from dalr.serving.refusal import RefusalError

TOKENS = "token ids are those of another model's tokenizer; send text"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The options of `dalr serve` that bound its memory and the time that a request waits."""

    max_rows: int = 2_048
    """Rows per request; OpenAI's own limit."""
    max_chars: int = 65_536
    """Characters per row."""
    max_payload_mb: int = 16
    max_waiting: int = 8_192
    """Rows of all requests that wait for the model."""
    max_batch: int = 64
    """Rows that are encoded at once."""
    max_wait_ms: float = 2.0
    """How long a batch waits for rows of other requests, if its predecessor had some."""
    max_answers: int = 1_000
    """Answers per search."""

    def __post_init__(self) -> None:
        problems = [
            Problem(where=_option(each.name), what=f"expected at least 1, found {getattr(self, each.name)}")
            for each in fields(self)
            if each.name != "max_wait_ms" and getattr(self, each.name) < 1
        ]
        if not 0 <= self.max_wait_ms <= 10_000:
            problems.append(
                Problem(where="--max-wait-ms", what=f"expected 0 to 10000 ms, found {self.max_wait_ms:g}")
            )
        if self.max_waiting < self.max_rows:
            what = (
                f"{self.max_waiting} rows may wait, but a request may have {self.max_rows}; "
                "raise it, or lower --max-rows"
            )
            problems.append(Problem(where="--max-waiting", what=what))
        if problems:
            raise ConfigError(problems)

    @property
    def max_bytes(self) -> int:
        """Of the body of a request."""
        return self.max_payload_mb * 2**20

    def rows_of(self, given: Any) -> list[str]:
        """The rows of an `input`: a string, or a list of strings.

        Raises:
            RefusalError: anything else, or too much of it.
        """
        rows = [given] if isinstance(given, str) else given
        if not isinstance(rows, list):
            raise _wrong(f"expected a string or a list of strings, found {_kind(given)}", "input")
        if not rows:
            raise _wrong("expected at least one string, found an empty list", "input")
        if len(rows) > self.max_rows:
            what = f"{len(rows)} rows, at most {self.max_rows} per request; send them in several requests"
            raise RefusalError(422, f"input: {what}", param="input", code="too_many_rows")
        for number, row in enumerate(rows):
            self.check(row, "input" if isinstance(given, str) else f"input[{number}]")
        return rows

    def check(self, row: Any, where: str) -> str:
        """One row, if it can be encoded; `where` names it.

        Raises:
            RefusalError: not text, blank, too long, or with halves of characters.
        """
        if not isinstance(row, str):
            tokens = _is_number(row) or (isinstance(row, list) and all(map(_is_number, row)))
            what = f"expected a string, found {_kind(row)}"
            raise _wrong(f"{what}; {TOKENS}" if tokens else what, where, "token_ids" if tokens else None)
        if is_blank(row):
            raise _wrong("expected text, found a blank string", where, "blank")
        if len(row) > self.max_chars:
            what = f"{len(row)} characters, at most {self.max_chars} per row; shorten it, or split it into several"
            raise RefusalError(422, f"{where}: {what}", param=where, code="row_too_long")
        if has_odd_characters(row):
            raise _wrong(f"half a character (a lone surrogate): {shown(row)}", where)
        return row


def refuse_cut(cut: Sequence[int], limit: int | None) -> None:
    """For a service that does not shorten rows.

    Raises:
        RefusalError: naming the first of the rows that are too long for the model.
    """
    if cut:
        what = f"{len(cut)} of the rows are longer than the {limit} tokens that the model reads; shorten them"
        raise RefusalError(422, f"input[{cut[0]}]: {what}", param=f"input[{cut[0]}]", code="row_too_long")


def _wrong(what: str, where: str, code: str | None = None) -> RefusalError:
    return RefusalError(400, f"{where}: {what}", param=where, code=code)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    names = {type(None): "null", dict: "an object", list: "a list", bool: "true or false"}
    return names.get(type(value), shown(value))


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"
