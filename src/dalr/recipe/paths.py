"""How are paths in recipes read? `$NAME`, `${NAME}` and `${NAME:-default}` come from the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dalr.errors import ConfigError
from dalr.io.paths import expanded

_VARIABLE = re.compile(r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})")


def expand(path: str) -> Path:
    """`path` with environment variables and a leading `~` replaced.

    Raises:
        ConfigError: a variable without a default is not set, or what comes of it can be no path.
    """

    def value(match: re.Match[str]) -> str:
        name = match["plain"] or match["name"]
        found = os.environ.get(name) or match["default"]
        if found is None:
            raise ConfigError(f"path {path!r} needs the environment variable {name}, which is not set")
        return found

    return expanded(_VARIABLE.sub(value, path), f"path {path!r:.200}")
