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
"""More than any training makes; a larger number is a typing mistake."""


class TrainingConfig(Section):
    """How long, how fast, in which precision."""

    batch_size: Annotated[int, Field(ge=2, le=1_000_000)] = 64
    """Rows per step, over all ranks together."""
    gather: bool = True
    """On several ranks: gather the sentence vectors of all ranks, so that loss and gradients are those of one rank
    with the whole batch. False: each rank compares its own rows only."""
    mini_batch_size: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Rows per rank whose activations are in memory at a time (gradient caching): large batches in little memory,
    at the price of one more forward pass. Null: the whole batch."""
    epochs: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Passes over the data."""
    max_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    """Number of steps, in place of `epochs`; null: as many as the epochs have."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-5
    """Peak learning rate of the student, and of the heads unless `head_learning_rate` is set."""
    head_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None
    """Peak learning rate of everything trained beside the student; null: `learning_rate`."""
    learning_rate_schedule: LearningRateSchedule = "linear"
    """Learning rate after the warm-up: linear or cosine decay to 0, or constant."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Decoupled weight decay of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0, le=MOST_STEPS)] = 0
    """Steps over which the learning rate rises linearly from 0."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Warm-up as a fraction of all steps, in place of `warmup_steps`; null: `warmup_steps` holds."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to this norm, over all trained parameters together, heads included."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The order of text batches and pair batches, and which rows share a batch."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of the student's forward pass (autocast). `auto` uses bf16 where the processor has arithmetic for
    it. The loss is always computed in fp32."""
    padding: Literal["auto", "packed", "bucketed", "padded"] = "auto"
    """How sentences of different length are computed. `packed` concatenates the real tokens of a batch,
    `bucketed` runs rows of similar length together, `padded` pads all to the longest. `auto` packs where the
    student's architecture allows it and uses buckets elsewhere. The batch, and so the negatives, are the same in
    all."""
    matryoshka_dims: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = ()
    """Embedding dimensions at which the loss is evaluated, such as [384, 128, 64], so that a vector may be
    truncated to its first 128 or 64 values (Matryoshka representation learning). Empty: the full dimension
    alone."""
    matryoshka_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Relative weight of each of these dimensions; null: all equal."""
    log_every: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 10
    """Steps between lines of `metrics.jsonl`."""
    report_to: tuple[Reporter, ...] = ()
    """Trackers that also get the records of `metrics.jsonl`; each needs the extra of the same name."""
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    """Processes that assemble batches; 0: the training process itself, between steps (0.3 ms per batch)."""
    save_every: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = 500
    """Steps between the checkpoints that `--resume` starts from; null: only when the run is asked to stop. One
    takes three times the bytes of the model, and about 2 s for BERT-base."""
    keep: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 1
    """How many of these checkpoints are kept; one more while the newest is being written."""

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
    """The validation metric by which the best weights are chosen; null: the last weights are kept."""

    kind: Literal["sts-b", "tsv", "retrieval", "function"] = "sts-b"
    """`sts-b`: Spearman correlation on STS-B dev, from a SentEval folder. `tsv`: Spearman correlation on your own
    file of score, sentence, sentence, or on a folder of such files, averaged by subfolder. `retrieval`: mean R@1
    of both directions over the held-out images, in the grounding space. `function`: the function that a program
    passes as `validation` to `dalr.train`."""
    data: str | None = None
    """The SentEval folder of `sts-b`, or the file or folder of `tsv`."""
    every: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 125
    """Steps between validations; the last step is always validated."""
    patience: Annotated[int, Field(ge=1, le=MOST_STEPS)] | None = None
    """Early stopping: end training after this many validations in a row without an improvement; null: never."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """How many points above the best score so far count as an improvement for `patience`."""
