"""Runs with grounding heads, of a space of their own and of CLIP's."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported_runs import Trained, make_run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Trained:
    """By a recipe with a space of its own."""
    return make_run(tmp_path_factory.mktemp("export"), tiny_bert, space=None)


@pytest.fixture(scope="session")
def trained_in_clip_space(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Trained:
    return make_run(tmp_path_factory.mktemp("export-clip"), tiny_bert, space="clip")
