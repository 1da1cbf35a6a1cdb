"""What does a Ray cluster cost? `dalr encode` at once, in two parts by hand, and by `--ray local`, on two cores.

All three run as commands, so that loading, starting and merging count. The model is that of `encode_many.py`.
Ratios alone are stated; the bytes are compared too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from encode_many import write_model, write_rows


def command(folder: Path, *arguments: str, threads: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen([sys.executable, "-m", "dalr", *arguments, "-q"], cwd=folder, env=environment)


def seconds(*running: subprocess.Popen[bytes], since: float) -> float:
    for each in running:
        if each.wait() != 0:
            raise SystemExit(f"{each.args} ended with {each.returncode}")
    return time.perf_counter() - since


def measure(folder: Path) -> dict[str, float]:
    """Seconds of the three ways, one after the other."""
    encode = ("encode", "model", "rows.txt", "--device", "cpu", "--out")
    start = time.perf_counter()
    found = {"at once": seconds(command(folder, *encode, "once.npy", threads=2), since=start)}
    start = time.perf_counter()
    parts = [command(folder, *encode, "parts.npy", "--part", f"{part}/2", threads=1) for part in (1, 2)]
    seconds(*parts, since=start)
    found["parts"] = seconds(command(folder, "encode", "--merge", "--out", "parts.npy", threads=1), since=start)
    start = time.perf_counter()
    found["ray"] = seconds(command(folder, *encode, "ray.npy", "--ray", "local", threads=1), since=start)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=65_536)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dim", type=int, default=128)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_rows(folder / "rows.txt", asked.rows)
        write_model(folder / "model", layers=asked.layers, dim=asked.dim)
        found = measure(folder)
        same = len({(folder / f"{name}.npy").read_bytes() for name in ("once", "parts", "ray")}) == 1
    print(
        json.dumps(
            {
                "rows": asked.rows,
                "same_bytes": same,
                "parts / at once": round(found["parts"] / found["at once"], 2),
                "ray / at once": round(found["ray"] / found["at once"], 2),
                "ray / parts": round(found["ray"] / found["parts"], 2),
            }
        )
    )
