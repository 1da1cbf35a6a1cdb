"""How are paths in recipes read? `$NAME`, `${NAME}` and `${NAME:-default}` come from the environment.

A relative path starts at `data.root` if that is given, else at the folder of the file that says it, so a recipe
means the same wherever dalr is called. What is said on the command line starts at the current folder, as everywhere
else, and so does a path that begins with a variable whose value is relative.
"""

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


def from_file(path: str, file: str) -> str:
    """A path that `file` says, as seen from the current folder."""
    folder = os.path.dirname(file)
    if not path or os.path.normpath(folder) == "." or path.startswith(("$", "~")) or os.path.isabs(path):
        return path
    return os.path.join(folder, path)
