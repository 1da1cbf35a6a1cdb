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
    """The sections of a recipe."""

    name: str
    description: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    data: DataConfig
    features: FeaturesConfig = FeaturesConfig()
    student: StudentConfig
    heads: HeadsConfig = HeadsConfig()
    teachers: tuple[TeacherConfig, ...] = ()
    objective: Objective
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig | None = None
