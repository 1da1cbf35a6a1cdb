"""How does the student learn the teachers' rankings? T5 `list_mle` and `list_net`, RankCSE's `consistency_js`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from dalr.losses.similarity import StudentLogitFields, sentence_cosines, teacher_cosines
from dalr.losses.term import Need, SentenceTerm, Temperature, nothing

if TYPE_CHECKING:
    from torch import Tensor

    from dalr.losses.inputs import Inputs


class ListTerm(StudentLogitFields, SentenceTerm):
    """Scores S = cos(z^a_i, z^b_j)/τ over lists of the other rows (self removed unless `include_self`)."""

    temperature: Temperature = 0.05
    include_self: bool = False

    def student_scores(self, inputs: Inputs) -> Tensor:
        """S: (n, n)."""
        return sentence_cosines(inputs, self) / (self.logit_temperature or 1.0) / self.temperature

    def lists(self, matrix: Tensor) -> Tensor:
        """(n, n) or, without self, (n, n − 1)."""
        from dalr.losses import functional

        return matrix if self.include_self else functional.off_diagonal(matrix)

    def is_empty(self, inputs: Inputs) -> bool:
        """Whether the lists of this batch have nothing to rank."""
        return len(inputs.z_a) < (2 if self.include_self else 3)


class RankingTerm(ListTerm):
    """A list term that learns from teachers."""

    @property
    def needs(self) -> frozenset[Need]:
        return frozenset({Need.TEACHERS})


class ListMLE(RankingTerm):
    """T5, ListMLE (RankCSE, Liu et al. 2023; used by DALR): likelihood of the teachers' order of the other rows.

    The teachers' temperature has no effect, since only their order counts. `reduction: sum` is the release: a
    constant student then costs ln n! (496 at n = 128), which drowns every other term under gradient clipping.
    """

    reduction: Literal["mean", "sum"] = "mean"
    """Over the list; the mean over rows is always taken."""
    epsilon: Annotated[float, Field(ge=0)] = 0.0
    """The release's 1e-7 inside the logarithm; 0 is the formula."""

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if self.is_empty(inputs):
            return nothing(inputs)
        ranks = functional.ranks_of(
            teacher_cosines(inputs), tie_order=inputs.tie_order, include_self=self.include_self
        )
        return functional.list_mle(
            self.student_scores(inputs), ranks, mean_over_list=self.reduction == "mean", epsilon=self.epsilon
        )


class ListNet(RankingTerm):
    """T5, ListNet (RankCSE): −(1/n) Σ softmax(T/τ_2) · log softmax(S) over the other rows."""

    teacher_temperature: Temperature = 0.05

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if self.is_empty(inputs):
            return nothing(inputs)
        target = teacher_cosines(inputs) / self.teacher_temperature
        return functional.list_net(self.lists(self.student_scores(inputs)), self.lists(target))


class ConsistencyJS(ListTerm):
    """RankCSE's ranking consistency: Jensen–Shannon between the top-1 distributions of the two directions.

    A true JS: 0 for equal distributions, at most ln 2. (The public code's clamp makes it −½(H(p) + H(q)).)
    """

    def value(self, inputs: Inputs) -> Tensor:
        from dalr.losses import functional

        if self.is_empty(inputs):
            return nothing(inputs)
        scores = self.student_scores(inputs)
        return functional.jensen_shannon(self.lists(scores), self.lists(scores.T))
