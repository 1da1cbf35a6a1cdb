"""What can the `training` and `validation` sections of a recipe say?"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dalr.data.schedule import ScheduleConfig
from dalr.recipe.section import Section

Reporter = Literal["tensorboard", "wandb", "trackio"]
LearningRateSchedule = Literal["linear", "cosine", "constant"]
MOST_STEPS = 100_000_000
"""More than any training makes; a larger number is a slip of the pen."""


class TrainingConfig(Section):
    """How long, how fast, in which precision."""

    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    """Rows of a step, over all ranks."""
    gather: bool = True
    """On several ranks: the sentence vectors of all ranks meet in the objective, so that the training is that of
    one rank with the whole batch. Without, each rank compares its own rows only."""
    mini_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Rows that a rank keeps activations of at a time (gradient caching): a large batch in little memory, for one
    more forward of the student."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    max_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    """Steps in all; takes the place of `epochs`."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-5
    """Of the student, and of the heads unless they have their own."""
    head_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Of everything trained beside the student; None: `learning_rate`."""
    learning_rate_schedule: LearningRateSchedule = "linear"
    """After the warm-up: a line or half a cosine down to 0, or no change."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0, le=MOST_STEPS)] = 0
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Warm-up as a share of all steps, in place of `warmup_steps`."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Over all trained parameters, heads included."""
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast of the student; `auto` takes bf16 where the processor has arithmetic for it. The objective is
    always fp32."""
    padding: Literal["auto", "packed", "bucketed", "padded"] = "auto"
    """What becomes of short rows: `packed` lays the real tokens of a batch end to end, `bucketed` runs rows of
    similar length together, `padded` fills all up to the longest. `auto` is packed where the student's
    architecture allows it, else bucketed. The batch, and so the negatives, are the same."""
    matryoshka_dims: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = ()
    """Embedding dimensions at which the objective is evaluated (`losses/matryoshka.py`), such as [384, 128, 64]:
    the first k numbers of an exported vector are then a vector themselves. Empty: the full vector alone."""
    matryoshka_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """One per dimension, relative to each other; None: all equal."""
    log_every: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 10
    report_to: tuple[Reporter, ...] = ()
    """Where the records of `metrics.jsonl` also go (`training/reporting.py`)."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that assemble batches; 0 does it between steps (0.3 ms a batch)."""
    save_every: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = 500
    """Steps between checkpoints that a stopped run goes on from; null writes one only when asked to stop. One takes
    three times the bytes of the model, and about 2 s for BERT-base."""
    keep: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 1
    """How many of them are kept; one more while the newest is being written."""

    def warmup(self, steps: int) -> int:
        """Steps of warm-up in a training of `steps`."""
        return self.warmup_steps if self.warmup_ratio is None else math.ceil(self.warmup_ratio * steps)

    @model_validator(mode="after")
    def _dimensions_differ(self) -> TrainingConfig:
        if len(set(self.matryoshka_dims)) != len(self.matryoshka_dims):
            raise ValueError("matryoshka_dims name each dimension once")
        weights = self.matryoshka_weights
        if weights is not None and len(weights) != len(self.matryoshka_dims):
            raise ValueError(f"{len(weights)} matryoshka_weights for {len(self.matryoshka_dims)} matryoshka_dims")
        return self

    @model_validator(mode="after")
    def _one_warmup(self) -> TrainingConfig:
        if self.warmup_ratio is not None and self.warmup_steps > 0:
            both = f"warmup_steps ({self.warmup_steps}) and warmup_ratio ({self.warmup_ratio:g})"
            raise ValueError(f"one of {both}, not both")
        return self


class ValidationConfig(Section):
    """The score by which the best weights are chosen."""

    kind: Literal["sts-b", "tsv", "retrieval", "function"] = "sts-b"
    """`sts-b`: STS-B dev in a SentEval folder. `tsv`: your own file of score, sentence, sentence, or a
    folder of such files, whose scores are averaged by subfolder (`evaluation/graded.py`). `retrieval`: mean R@1 of
    both directions over the held-out images, in the grounding space. `function`: what a program passes as
    `validation` to `dalr.train`."""
    data: str | None = None
    """The SentEval folder, the TSV file or the folder of these."""
    every: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 125
    """Steps between scores; the last step is always scored."""
    patience: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    """End training after so many scores in a row without a gain; None: never."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """What counts as a gain for `patience`, in points over the best score before."""
