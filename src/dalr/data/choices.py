"""Which formats of pairs may an option name? Apart from readers, so that `dalr --help` imports nothing heavy."""

from __future__ import annotations

from typing import Literal

FormatName = Literal[
    "jsonl", "karpathy", "coco", "flickr-token", "flickr-csv", "tsv", "csv", "parquet", "datasets", "webdataset"
]
