"""Do an image and a sentence match? T3 `consistency`: the auxiliary task whose similarity softens T4's targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dalr.losses.term import Need, Term, given, nothing

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs


class Consistency(Term):
    """T3: cosine-embedding loss of matched pairs (i, i) and unmatched pairs (i, π(i)), mean over the 2n pairs.

    DALR, auxiliary task. π comes with the inputs: a random derangement that avoids the same image [ours]; the
    release rolls the images by a fixed number of rows, which mislabels rows that share an image and is the
    identity when n divides it. The match classifier of the paper's figure, on [text; image; text·image], is
    trained with weight `classifier_weight` (the release builds it and never trains it).
    """

    margin: Annotated[float, Field(ge=-1, le=1)] = 0.2
    classifier_weight: Annotated[float, Field(ge=0)] = 0.0
    unmatched: Literal["derangement", "roll"] = "derangement"
    roll: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    """Rows to roll by with `unmatched: roll`."""

    @property
    def needs(self) -> frozenset[Need]:
        classifier = {Need.MATCH_CLASSIFIER} if self.classifier_weight > 0 else set()
        return frozenset({Need.IMAGE, Need.ALIGNERS} | classifier)

    def value(self, inputs: Inputs) -> Tensor:
        import torch
        import torch.nn.functional as F

        from dalr.losses import functional

        text, image = given(inputs.text_aligned), given(inputs.image_aligned)
        if len(text) < 2:
            return nothing(inputs)
        if self.unmatched == "roll":
            other = torch.roll(image, self.roll, dims=0)
        elif inputs.unmatched is None:
            return nothing(inputs)
        else:
            other = image[inputs.unmatched]
        loss = functional.cosine_embedding(text, image, other, margin=self.margin)
        if self.classifier_weight > 0 and inputs.match_logits is not None:
            pairs = len(inputs.match_logits) // 2
            labels = torch.arange(2 * pairs, device=loss.device) < pairs
            loss = loss + self.classifier_weight * F.cross_entropy(inputs.match_logits, labels.long())
        return loss
