"""`POST /v1/embeddings` as OpenAI's API has it."""

from __future__ import annotations

import base64
import json
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr

from dalr.serving.refusal import RefusalError

Encoding = Literal["float", "base64"]


class EmbeddingsRequest(BaseModel):
    """What a client sends."""

    model_config = ConfigDict(extra="forbid")

    input: Any
    """A string, or a list of strings; `Limits.rows_of` says what is wrong with anything else."""
    model: StrictStr | None = None
    encoding_format: Encoding = "float"
    dimensions: StrictInt | None = None
    user: StrictStr | None = None


def require_model(asked: str | None, name: str, reference: str) -> None:
    """Refuse to answer for another model: vectors of two models cannot be compared.

    Raises:
        RefusalError: `asked` is neither the name under which the model is served nor what it was loaded from.
    """
    if asked not in (None, name, reference):
        what = f"model {asked!r:.200} is not served here; this service has {name!r}"
        raise RefusalError(404, what, param="model", code="model_not_found")


def embeddings_body(vectors: Float32[np.ndarray, "n d"], *, model: str, encoding: Encoding, tokens: int) -> bytes:
    """The response."""
    data = [
        {"object": "embedding", "index": number, "embedding": embedding}
        for number, embedding in enumerate(_base64(vectors) if encoding == "base64" else vectors.tolist())
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data, "model": model, "usage": usage}
    return json.dumps(body, allow_nan=False, separators=(",", ":")).encode("utf-8")


def _base64(vectors: Float32[np.ndarray, "n d"]) -> list[str]:
    """The numbers of each row as little-endian float32."""
    return [base64.b64encode(row.tobytes()).decode("ascii") for row in vectors.astype("<f4")]
