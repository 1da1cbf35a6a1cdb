"""What can the `student`, `heads` and `teachers` sections of a recipe say?"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from dalr.models.choices import ComputePrecision, PoolingMode
from dalr.recipe.section import LEFT_OUT_IF_NONE, Section

POOLINGS = ", ".join(get_args(PoolingMode)[:-1]) + f" or {get_args(PoolingMode)[-1]}"


class EncoderConfig(Section):
    """Which text encoder, and how its tokens become one vector."""

    model: str
    """A folder, a hub id, or `package:NAME/FOLDER`, a model inside an installed Python package."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; null: its main branch."""
    pooling: PoolingMode | None = None
    """How token states become one vector: `cls`, `mean`, `last` token, or `avg_first_last` (frozen encoders only).
    Null: as the model itself states; required for a plain Hugging Face encoder, which states nothing."""
    num_layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Keep only the first layers; null: all."""
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] | None = None
    """Longest input in tokens, written into the exported model; null: the encoder's own limit."""
    prompt: Annotated[str | None, LEFT_OUT_IF_NONE] = None
    """Text before every sentence: the name of one of the model's prompts, or the text itself; '' for none. Null:
    the model's own default prompt."""


class LoraSection(Section):
    """Adapters of low rank that are trained in place of the student's own weights (`models/lora.py`)."""

    rank: Annotated[int, Field(ge=1, le=65_536)] = 16
    """Rank of the adapters: more rank, more trained parameters."""
    alpha: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """The adapters' output is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapters' input."""
    target_modules: tuple[str, ...] | None = None
    """Names of the linear layers that get adapters, such as [query, value]; null: all linear layers of the
    encoder."""


class StudentConfig(EncoderConfig):
    """The encoder that is trained and exported."""

    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Hidden and attention dropout; null: the model's own (0.1 for BERT). Dropout makes the two views of a sentence
    differ."""
    freeze_layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """How many of the first layers are not trained; null: none. With all of them frozen, only the embeddings are
    trained. Not together with `lora`."""
    freeze_embeddings: bool = False
    """Whether the token embeddings stay as they are. Not together with `lora`."""
    lora: LoraSection | None = None
    """Train low-rank adapters in place of the student's own weights; they are merged into the exported model.
    Null: train the weights themselves."""

    @model_validator(mode="after")
    def _pools_the_last_layer(self) -> StudentConfig:
        if self.pooling == "avg_first_last":
            raise ValueError(
                "pooling avg_first_last is for frozen encoders; a student is exported with cls, mean or last"
            )
        return self

    @model_validator(mode="after")
    def _adapters_freeze(self) -> StudentConfig:
        if self.lora is not None and (self.freeze_layers is not None or self.freeze_embeddings):
            raise ValueError("lora trains nothing but its adapters; leave freeze_layers and freeze_embeddings out")
        return self


class HeadsConfig(Section):
    """What is trained beside the student and never exported with it."""

    sentence: bool = True
    """A sentence head z = tanh(W h + b) between the pooled vector h and the sentence terms; false: z = h."""
    grounding_dim: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Dimension of the space that sentences and images share (`grounding`, retrieval)."""
    aligner_dim: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Dimension of the space in which `consistency` compares sentences and images."""
    aligner_norm: Literal["layer", "batch"] = "layer"
    """Normalisation inside the aligners of `consistency`: LayerNorm, or BatchNorm as in the released code."""
    aligner_output: Literal["linear", "norm_relu"] = "linear"
    """Last layer of the aligners. `norm_relu`, as in the released code, ends in a ReLU, so that cosines are never
    negative."""


class TeacherConfig(Section):
    """One frozen text teacher: a model with its own tokenizer, dimension and pooling, or its stored vectors."""

    model: str | None = None
    """A folder, a hub id, or `package:NAME/FOLDER`; its vectors are computed once and cached. Give `model` or
    `features`, not both."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; null: its main branch."""
    pooling: PoolingMode | None = None
    """How its token states become one vector: `cls`, `mean`, `last` or `avg_first_last`; null: as the model
    states."""
    num_layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Use only its first layers; null: all."""
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] | None = None
    """Its longest input in tokens; null: its own limit."""
    prompt: Annotated[str | None, LEFT_OUT_IF_NONE] = None
    """Text before every sentence: a prompt's name or the text itself, '' for none; null: its own default prompt."""
    precision: Annotated[ComputePrecision | None, LEFT_OUT_IF_NONE] = None
    """What its vectors are computed in: `fp32`, or `bf16`, which is faster on processors that have it and moves
    them a little; null: fp32. Training itself has `training.precision`."""
    features: str | None = None
    """Its stored vectors in place of a model: a feature store with the ids of the captions, and of the text lines
    where terms apply to text."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """α_k, its weight in the similarities of the teachers; the weights of all teachers must add up to 1."""
    control: Annotated[Literal["shuffled"] | None, LEFT_OUT_IF_NONE] = None
    """Control experiment: train without what this teacher knows. `shuffled`: its vectors are assigned to the rows
    of each stream at random, under the seed."""

    def encoder(self) -> EncoderConfig:
        assert self.model is not None
        return EncoderConfig(
            model=self.model,
            revision=self.revision,
            pooling=self.pooling,
            num_layers=self.num_layers,
            max_tokens=self.max_tokens,
            prompt=self.prompt,
        )
