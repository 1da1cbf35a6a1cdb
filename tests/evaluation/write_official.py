"""Write `official.json` from a complete copy of SentEval's `downstream` data.

PYTHONPATH=src python tests/evaluation/write_official.py FOLDER
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path

from dalr.evaluation.official import describe

_PATTERNS = (
    "STS/STSBenchmark/sts-*.csv",
    "SICK/SICK_t*.txt",
    "MR/rt-polarity.*",
    "CR/custrev.*",
    "SUBJ/subj.*",
    "MPQA/mpqa.*",
    "SST/binary/sentiment-*",
    "TREC/*.label",
    "MRPC/msr_paraphrase_*.txt",
)


def describe_folder(data: Path) -> str:
    """The JSON text of `official.json` for a complete official copy under `data`."""
    found = [path for pattern in _PATTERNS for path in data.glob(pattern)]
    for gold in data.glob("STS/STS1?-en-test/STS.gs.*.txt"):
        sentences = gold.with_name(gold.name.replace(".gs.", ".input."))
        if sentences.is_file():  # STS13's SMT has scores without sentences, STS12's ALL repeats the others
            found += [gold, sentences]
    names = sorted(path.relative_to(data).as_posix() for path in found)
    return json.dumps([asdict(describe(data / name, name)) for name in names], indent=1) + "\n"


if __name__ == "__main__":
    Path(str(files("dalr.evaluation") / "official.json")).write_text(describe_folder(Path(sys.argv[1])))
