"""A made-up copy of SentEval's whole `downstream` folder, and the table that makes it the official one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from senteval import write_senteval

from dalr.evaluation import official
from dalr.evaluation.official import OfficialFile, describe_folder

TRANSFER = {
    "MR": ("rt-polarity.neg", "rt-polarity.pos"),
    "CR": ("custrev.neg", "custrev.pos"),
    "SUBJ": ("subj.objective", "subj.subjective"),
    "MPQA": ("mpqa.neg", "mpqa.pos"),
    "SST/binary": ("sentiment-train", "sentiment-dev", "sentiment-test"),
    "TREC": ("train_5500.label", "TREC_10.label"),
    "MRPC": ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"),
}


def write_official_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every file of both groups under `folder`, which the package then takes for the official data."""
    write_senteval(folder)
    for place, names in TRANSFER.items():
        (folder / place).mkdir(parents=True)
        for name in names:
            rows = [f"{name} line {n} of café\n" for n in range(5)]
            encoding = "latin-1" if place == "TREC" else "utf-8"
            (folder / place / name).write_bytes("".join(rows).encode(encoding))
    table = {entry["path"]: OfficialFile(**entry) for entry in json.loads(describe_folder(folder))}
    monkeypatch.setattr(official, "official_files", lambda: table)
    return folder
