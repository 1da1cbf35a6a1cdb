"""What `/search` is asked: a sentence, an image by its key, or an image file as base64."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from dalr.inference.searcher import Within
from dalr.serving.limits import Limits
from dalr.serving.refusal import RefusalError


class SearchRequest(BaseModel):
    """What a client sends; exactly one of `q`, `image` and `image_id`."""

    model_config = ConfigDict(extra="forbid")

    q: StrictStr | None = None
    image: StrictStr | None = None
    """The bytes of an image file as base64."""
    image_id: StrictStr | None = None
    """The key of an image of the collection."""
    k: StrictInt = 10
    within: Annotated[Within, Field(alias="in")] = "images"

    def check(self, limits: Limits) -> None:
        """Raises RefusalError: nothing or several things are asked, or too many answers."""
        asked = [name for name in ("q", "image", "image_id") if getattr(self, name) is not None]
        if len(asked) != 1:
            found = f"found {' and '.join(asked)}" if asked else "found none"
            raise RefusalError(400, f"expected one of q, image and image_id, {found}", param="q")
        if self.q is not None:
            limits.check(self.q, "q")
        if not 1 <= self.k <= limits.max_answers:
            raise RefusalError(422, f"k: expected 1 to {limits.max_answers}, found {self.k}", param="k")

    def image_bytes(self) -> bytes:
        """The image file.

        Raises:
            RefusalError: not base64.
        """
        try:
            return base64.b64decode(self.image or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise RefusalError(400, f"image: not base64 ({error})", param="image") from None
