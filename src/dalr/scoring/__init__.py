"""Evaluate what a person names: a model folder, a run, a checkpoint, a hub id; one of them or several.

Everything that a task reads is read and checked before a model is loaded, and once for any number of models. A run
knows which pairs, features and held-out images it was made with, so retrieval needs no more than the run.
"""

from dalr.scoring.request import Place, Request, locate
from dalr.scoring.run import Loaded, evaluate, evaluate_model, evaluate_one, keep, load
from dalr.scoring.runs import recipe_of_run, run_record
from dalr.scoring.subjects import settings_of

__all__ = [
    "Loaded",
    "Place",
    "Request",
    "evaluate",
    "evaluate_model",
    "evaluate_one",
    "keep",
    "load",
    "locate",
    "recipe_of_run",
    "run_record",
    "settings_of",
]
