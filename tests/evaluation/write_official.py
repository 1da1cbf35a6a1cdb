"""Write `official.json` from a complete copy of SentEval's `downstream` data.

PYTHONPATH=src python tests/evaluation/write_official.py FOLDER
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path

from dalr.evaluation.official import describe_folder

if __name__ == "__main__":
    Path(str(files("dalr.evaluation") / "official.json")).write_text(describe_folder(Path(sys.argv[1])))
