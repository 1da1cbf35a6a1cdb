"""`Recipe`: everything that a training run depends on, as one typed value.

The classes of its sections stand beside their owners. What must hold between sections is in `config.py`; here is
nothing to import but sections, so that training is written in terms of a recipe.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dalr.data.config import DataConfig
from dalr.features.config import FeaturesConfig
from dalr.models.config import HeadsConfig, StudentConfig, TeacherConfig
from dalr.objectives import Objective
from dalr.section import Section
from dalr.training.config import DevelopmentConfig, TrainingConfig


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
    development: DevelopmentConfig | None = None
