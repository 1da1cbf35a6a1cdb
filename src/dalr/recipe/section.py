"""What do all sections of a recipe share? They are frozen, keyword-only, strict, without unknown keys.

pydantic reports all problems of a whole recipe with their key paths; `recipe/loading.py` adds file and line.
Section classes live beside their owners, in modules that import no torch, so that checking a recipe takes less
than a second.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

LEFT_OUT_IF_NONE: Any = Field(exclude_if=lambda value: value is None)
"""Of a key that came later: recipes without it are dumped, and known by their content, as before there was one."""


class Section(BaseModel):
    """A part of a recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def keys(cls) -> list[str]:
        """The keys that this section may have."""
        return list(cls.model_fields)

    @classmethod
    def annotation_of(cls, key: str) -> Any:
        """The type of the value at a key; None for an unknown one."""
        field = cls.model_fields.get(key)
        return field.annotation if field is not None else None
