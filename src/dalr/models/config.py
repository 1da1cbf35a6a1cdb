"""What can the `student`, `heads` and `teachers` sections of a recipe say?"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from dalr.models.choices import PoolingMode
from dalr.recipe.section import LEFT_OUT_IF_NONE, Section

POOLINGS = ", ".join(get_args(PoolingMode)[:-1]) + f" or {get_args(PoolingMode)[-1]}"


class EncoderConfig(Section):
    """Which text encoder, and how its tokens become one vector."""

    model: str
    """A folder, a hub id, or `package:NAME/FOLDER` for a model inside an installed Python package."""
    revision: str | None = None
    pooling: PoolingMode | None = None
    """None keeps what the model itself states; a plain Hugging Face encoder states nothing and needs it."""
    num_layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Keep only the first layers."""
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] | None = None
    """Longest input; None is the encoder's own limit."""
    prompt: Annotated[str | None, LEFT_OUT_IF_NONE] = None
    """What stands before every sentence: the name of one of the model's prompts, or a text, '' for none. None is
    the model's own default."""


class LoraSection(Section):
    """Adapters of low rank that are trained in place of the student's own weights (`models/lora.py`)."""

    rank: Annotated[int, Field(ge=1, le=65_536)] = 16
    alpha: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    """The adapter's product is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: tuple[str, ...] | None = None
    """Last names of linear layers, such as [query, value]; None: every linear layer of every layer."""


class StudentConfig(EncoderConfig):
    """The encoder that is trained and exported."""

    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Hidden and attention dropout; None keeps the model's own (0.1 for BERT)."""
    freeze_layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Layers, from the first on, that are not trained; with all of them frozen, the embeddings alone are."""
    freeze_embeddings: bool = False
    lora: LoraSection | None = None

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
    """z = tanh(W h + b); false: z = h."""
    grounding_dim: Annotated[int, Field(ge=1, le=65_536)] = 256
    aligner_dim: Annotated[int, Field(ge=1, le=65_536)] = 256
    aligner_norm: Literal["layer", "batch"] = "layer"
    aligner_output: Literal["linear", "norm_relu"] = "linear"
    """`norm_relu` is the release, whose aligners cannot produce a negative cosine."""


class TeacherConfig(Section):
    """One frozen text teacher: a model with its own tokenizer, dimension and pooling, or its stored vectors."""

    model: str | None = None
    revision: str | None = None
    pooling: PoolingMode | None = None
    num_layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    max_tokens: Annotated[int, Field(ge=3, le=1_000_000)] | None = None
    prompt: Annotated[str | None, LEFT_OUT_IF_NONE] = None
    features: str | None = None
    """A feature store with the ids of the captions (and of the text lines, where terms apply to text)."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """α_k; the weights of all teachers add up to 1."""
    control: Annotated[Literal["shuffled"] | None, LEFT_OUT_IF_NONE] = None
    """Train without what this teacher knows: its vectors are dealt out to the rows of each stream at random, under
    the seed."""

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
