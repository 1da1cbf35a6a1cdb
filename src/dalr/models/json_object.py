"""How is a JSON object of a model folder read?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dalr.errors import ModelFileError, Problem
from dalr.io.paths import regular


def json_object(path: Path, where: str) -> dict[str, Any]:
    """The object in `path`; `where` names the model for the message.

    Raises:
        ModelFileError: it cannot be read, or is not a JSON object.
    """
    try:
        found = json.loads(regular(path).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(Problem(where=where, what=f"{path}: not JSON: {error!r:.120}")) from None
    if not isinstance(found, dict):
        raise ModelFileError(Problem(where=where, what=f"{path}: expected a JSON object"))
    return found
