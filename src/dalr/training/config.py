"""The `training` and `development` sections of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dalr.data.schedule import ScheduleConfig
from dalr.section import Section


class TrainingConfig(Section):
    """How long, how fast, in which precision."""

    batch_size: Annotated[int, Field(ge=2)] = 64
    epochs: Annotated[int, Field(ge=1)] = 1
    max_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps in all; takes the place of `epochs`."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 3e-5
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Over all trained parameters, heads included."""
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Autocast of the student; `auto` takes bf16 where the processor has arithmetic for it. The objective is
    always fp32."""
    log_every: Annotated[int, Field(ge=1)] = 10
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that assemble batches; 0 does it between steps (0.3 ms a batch)."""
    save_every: Annotated[int, Field(ge=1)] | None = 500
    """Steps between checkpoints that a stopped run goes on from; null writes one only when asked to stop. One takes
    three times the bytes of the model, and about 2 s for BERT-base."""
    keep: Annotated[int, Field(ge=1)] = 1
    """How many of them are kept; one more while the newest is being written."""


class DevelopmentConfig(Section):
    """The score by which the best weights are chosen."""

    kind: Literal["sts-b", "tsv", "retrieval"] = "sts-b"
    """`sts-b`: STS-B dev in a SentEval folder. `tsv`: your own file of score, sentence, sentence. `retrieval`:
    mean R@1 of both directions over the held-out images, in the grounding space."""
    data: str | None = None
    """The SentEval folder or the TSV file."""
    every: Annotated[int, Field(ge=1)] = 125
    """Steps between scores; the last step is always scored."""
