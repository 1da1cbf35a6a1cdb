"""What does a training run depend on? `Recipe`: all of it, as one typed value.

The classes of its sections stand beside their owners; what must hold between sections is in `recipe/checks.py`.
This module imports sections only, so that training can be written in terms of a recipe.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dalr.data.config import DataConfig
from dalr.features.config import FeaturesConfig
from dalr.losses import Objective
from dalr.models.config import HeadsConfig, StudentConfig, TeacherConfig
from dalr.recipe.section import Section
from dalr.training.config import TrainingConfig, ValidationConfig


class Recipe(Section):
    """Everything that a training run depends on."""

    name: str
    """Names the run: in reports, and in the default run folder `runs/NAME-TIME`."""
    description: str = ""
    """One line for people; has no effect."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all random choices: initial heads, order of batches, dropout, drawn captions."""
    data: DataConfig
    """Image-caption pairs and plain text."""
    features: FeaturesConfig = FeaturesConfig()
    """Frozen vectors of the images and, for KDMCSE, CLIP's vectors of the captions."""
    student: StudentConfig
    """The encoder that is trained and exported."""
    heads: HeadsConfig = HeadsConfig()
    """Small layers that are trained beside the student and are not part of the exported model."""
    teachers: tuple[TeacherConfig, ...] = ()
    """Frozen text encoders whose similarities are targets of the ranking and alignment terms: a list of
    sections."""
    objective: Objective
    """The loss: a weighted sum of the terms named here. A term is on when its section is present."""
    training: TrainingConfig = TrainingConfig()
    """Optimizer, batches, precision, checkpoints."""
    validation: ValidationConfig | None = None
