"""How is a sentence vector compared with a teacher's token states? T7 `global_to_local` (release only)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dalr.losses.term import Need, SentenceTerm, Temperature, nothing

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs


class GlobalToLocal(SentenceTerm):
    """T7: InfoNCE of a sentence vector against its own teacher tokens versus all real tokens of other sentences.

    Released DALR code, not in the paper; weight 0 in `dalr`. Here both sides are normalised on the feature axis
    and each teacher has its own contrast, averaged by α. The release adds the token states of its two teachers
    (`mix: states`), normalises them over the *token* axis with padding included (`token_axis: token`) and leaves
    the sentence vector as it is (`normalize_sentence: false`); τ 0.05.
    """

    temperature: Temperature = 0.07
    mix: Literal["losses", "states"] = "losses"
    token_axis: Literal["feature", "token"] = "feature"
    normalize_sentence: bool = True

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.TEACHER_TOKENS})

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if len(inputs.z_a) < 2 or not inputs.teacher_tokens:
            return nothing(inputs)
        sentences = functional.normalize(inputs.z_a) if self.normalize_sentence else inputs.z_a
        axis = -1 if self.token_axis == "feature" else 1
        first, rest = inputs.teacher_tokens[0], inputs.teacher_tokens[1:]
        if self.mix == "states":
            states = sum((teacher.weight * teacher.states for teacher in rest), first.weight * first.states)
            groups = [(1.0, states, first.mask)]
        else:
            groups = [(teacher.weight, teacher.states, teacher.mask) for teacher in inputs.teacher_tokens]
        losses = [
            weight
            * functional.token_contrast(
                sentences, functional.normalize(states, dim=axis), mask, temperature=self.temperature
            )
            for weight, states, mask in groups
        ]
        return sum(losses[1:], losses[0])
