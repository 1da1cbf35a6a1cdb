"""A made-up copy of SentEval's whole `downstream` folder, and the table that makes it the official one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from write_official import describe_folder

from dalr.evaluation import official
from dalr.evaluation.official import OfficialFile
from senteval import write_senteval


def write_official_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file of both groups under `folder`, which the package then takes for the official data."""
    write_senteval(folder)
    table = {entry["path"]: OfficialFile(**entry) for entry in json.loads(describe_folder(folder))}
    monkeypatch.setattr(official, "official_files", lambda: table)
    return folder
