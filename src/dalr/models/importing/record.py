"""What did an import do? A table for the terminal, and a JSON file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dalr.models.choices import HeadChoice, PoolingMode
from dalr.models.layout import Dropped, Layout
from dalr.version import VERSION

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ImportedModel:
    """What an import took, what it left, and how the result makes vectors."""

    checkpoint: Path
    weights: str
    sha256: str
    architecture: str
    method: str | None
    layout: Layout
    numbers: int
    pooling: PoolingMode
    head: HeadChoice
    max_tokens: int
    not_opened: tuple[str, ...]

    def lines(self) -> list[str]:
        """A table for the terminal."""
        under = f" under {self.layout.prefix!r}" if self.layout.prefix else ""
        rows = [
            ("read", f"{self.weights}, sha256 {self.sha256[:12]}..."),
            (
                "taken",
                f"{len(self.layout.encoder)} parameters of {self.architecture}{under}, {self.numbers:,} numbers",
            ),
            *[("dropped", f"{len(group.names)} of {group.group}: {group.what}") for group in self._dropped()],
            ("pooling", self.pooling),
            ("head", "kept: tanh(W h + b) follows the pooling" if self.head == "keep" else "dropped"),
            ("longest input", f"{self.max_tokens} tokens"),
        ]
        if self.not_opened:
            rows.append(("not opened", ", ".join(self.not_opened)))
        width = max(len(name) for name, _ in rows)
        return [f"{name:{width}}  {what}" for name, what in rows]

    def as_json(self) -> dict[str, object]:
        return {
            "format": "dalr-import",
            "version": _VERSION,
            "dalr": VERSION,
            "checkpoint": self.checkpoint.name,
            "weights": self.weights,
            "sha256": self.sha256,
            "architecture": self.architecture,
            "method": self.method,
            "prefix": self.layout.prefix,
            "parameters": len(self.layout.encoder),
            "numbers": self.numbers,
            "dropped": [
                {"group": group.group, "what": group.what, "names": list(group.names)} for group in self._dropped()
            ],
            "pooling": self.pooling,
            "head": {"choice": self.head, "names": list(self.layout.head or ())},
            "max_tokens": self.max_tokens,
            "not_opened": list(self.not_opened),
        }

    def _dropped(self) -> list[Dropped]:
        """The groups without the head's parameters where those were kept."""
        kept = set(self.layout.head or ()) if self.head == "keep" else set()
        groups = []
        for group in (*self.layout.dropped, *self.layout.unknown):
            if names := tuple(name for name in group.names if name not in kept):
                groups.append(Dropped(group=group.group, what=group.what, names=names))
        return groups
