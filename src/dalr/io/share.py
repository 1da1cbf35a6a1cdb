"""Which parts of a work does one of several processes do (`--part i/n`)? Every n-th, counted from the i-th.

What the parts are depends on the input alone, so that n machines, or one after another, give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from dalr.errors import ConfigError, Problem


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which parts one process computes: those whose number, divided by `of`, leaves `number`."""

    number: int
    """From 0."""
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.of:
            what = f"expected i/n with 1 <= i <= n, found {self.number + 1}/{self.of}"
            raise ConfigError(Problem(where="--part", what=what))

    @property
    def name(self) -> str:
        return f"part-{self.number + 1}-of-{self.of}"

    def has(self, part: int) -> bool:
        return part % self.of == self.number


def share_of(part: str) -> Share:
    """What `--part 2/8` says.

    Raises:
        ConfigError: it says something else.
    """
    number, _, of = part.partition("/")
    if not all(each.isascii() and each.isdigit() and len(each) < 10 for each in (number, of)) or not int(of):
        raise ConfigError(Problem(where="--part", what=f"expected i/n such as 2/8, found {part!r:.40}"))
    return Share(number=int(number) - 1, of=int(of))
