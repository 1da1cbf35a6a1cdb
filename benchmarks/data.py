"""Rows per second and peak memory of reading and checking data: `python benchmarks/data.py`.

Real files come from `$DALR_SHARED/data` (left out where it is absent), the rest is generated in a temporary folder.
Each measurement runs in a process of its own, because peak memory is a process's; what Python and the imports need
by themselves is in it. CPU seconds are what counts on a machine that others use as well.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

LINES, IMAGES, PER_IMAGE = 1_000_000, 30_000, 5
KARPATHY_IMAGES = 123_287
JSON_IMAGES, DIM = 2_000, 768
WORDS = (
    "a",
    "the",
    "two",
    "dog",
    "cat",
    "man",
    "woman",
    "runs",
    "sits",
    "on",
    "in",
    "near",
    "grass",
    "red",
    "small",
)


def main() -> None:
    if len(sys.argv) > 1:
        measure(sys.argv[1], [Path(argument) for argument in sys.argv[2:]])
        return
    with tempfile.TemporaryDirectory(prefix="dalr-data-") as name:
        print(f"{'what':44}{'rows':>10}{'wall s':>9}{'CPU s':>9}{'rows/CPU s':>12}{'peak MiB':>10}")
        for title, what, *paths in jobs(Path(name)):
            arguments = [sys.executable, __file__, what, *map(str, paths)]
            environment = os.environ | {"DALR_CACHE": str(Path(name) / "cache")}
            done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
            rows, wall, cpu, peak = json.loads(done.stdout.splitlines()[-1])
            print(f"{title:44}{rows:>10,}{wall:>9.2f}{cpu:>9.2f}{rows / cpu:>12,.0f}{peak:>10.0f}", flush=True)


def jobs(folder: Path) -> Iterator[tuple[str | Path, ...]]:
    """(title, what is measured, files)."""
    yield "nothing but the imports", "imports"
    captions = Path(os.environ.get("DALR_SHARED", "../shared")) / "data" / "captions"
    if captions.is_dir():
        yield "COCO val2017, the official JSON", "pairs", captions / "coco_captions_val2017.json"
        yield "Flickr30k, JSON lines in gzip", "pairs", captions / "flickr30k_captions.jsonl.gz"
    yield "Karpathy JSON of COCO's size, generated", "pairs", write_karpathy(folder / "dataset_coco.json")
    recipe = write_recipe(folder)
    yield f"check: {LINES:,} lines, {IMAGES * PER_IMAGE:,} pairs", "check", recipe
    yield "the same, features imported before", "check", recipe
    tree = write_vectors(folder / "flickr.json")
    title = f"import of {tree.stat().st_size >> 20} MiB of KDMCSE's JSON"
    yield title, "import", tree, folder / "imported"


def measure(what: str, paths: list[Path]) -> None:
    """Print rows, wall and CPU seconds, and peak memory in MiB of one piece of work."""
    run = {"imports": nothing, "pairs": read, "check": check, "import": import_vectors}[what]
    run_with: Callable[..., int] = run
    start, cpu = time.perf_counter(), time.process_time()
    rows = run_with(*paths)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(json.dumps([rows, wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))


def nothing() -> int:
    import dalr.training.data  # noqa: F401

    return 0


def read(path: Path) -> int:
    from dalr.data.dataset import read_pairs

    report: dict[str, int | str] = {}
    problems: list[object] = []
    pairs = read_pairs(path, problems, report)  # type: ignore[arg-type]
    assert not problems
    print(report)
    return len(pairs.captions)


def check(recipe: Path) -> int:
    from dalr.training.check import check_recipe

    checked = check_recipe(str(recipe))
    assert checked.error is None, checked.error
    print(checked.report)
    return LINES + IMAGES * PER_IMAGE


def import_vectors(path: Path, out: Path) -> int:
    from dalr.features.predecessors import import_json

    found = import_json(path, out)
    return found.images + found.captions


def write_karpathy(path: Path) -> Path:
    """As dataset_coco.json: 123,287 images, five sentences each, with their tokens."""
    random = np.random.default_rng(0)
    with open(path, "w") as file:
        file.write('{"images": [')
        for number in range(KARPATHY_IMAGES):
            texts = sentence(random, PER_IMAGE)
            sentences = [{"tokens": text.split(), "raw": text, "imgid": number} for text in texts]
            split = ("train", "restval", "val", "test")[min(number % 40, 3)]
            name = f"{number:012d}.jpg"
            image = {"filepath": "val2014", "filename": name, "split": split, "sentences": sentences}
            file.write((", " if number else "") + json.dumps(image))
        file.write('], "dataset": "coco"}')
    return path


def write_recipe(folder: Path) -> Path:
    """A recipe over generated pairs, lines, and a matrix of image features."""
    random = np.random.default_rng(1)
    with open(folder / "pairs.jsonl", "w") as file:
        for number in range(IMAGES):
            file.write(json.dumps({"image": f"{number}.jpg", "captions": sentence(random, PER_IMAGE)}) + "\n")
    with open(folder / "text.txt", "w") as file:
        for _ in range(LINES // 1000):
            file.write("".join(f"{text}\n" for text in sentence(random, 1000)))
    np.save(folder / "images.npy", random.normal(size=(IMAGES, 512)).astype(np.float16))
    (folder / "recipe.yaml").write_text(
        f"name: big\ndata: {{root: '{folder}', pairs: pairs.jsonl, text: text.txt}}\n"
        "features: {image: images.npy, image_ids: pairs.jsonl}\n"
        "student: {model: bert-base-uncased, pooling: cls}\n"
        "objective: {infonce: {}, grounding: {weight: 0.1}}\n"
    )
    return folder / "recipe.yaml"


def write_vectors(path: Path) -> Path:
    random = np.random.default_rng(2)
    with open(path, "w") as file:
        for number in range(JSON_IMAGES):
            vectors = random.normal(size=(1 + PER_IMAGE, DIM)).astype(np.float32).tolist()
            image = {"captions": sentence(random, PER_IMAGE), "image_feat": vectors[0], "lang_feat": vectors[1:]}
            file.write(f"{', ' if number else '{'}{json.dumps(str(number))}: {json.dumps(image)}")
        file.write("}")
    return path


def sentence(random: np.random.Generator, count: int) -> list[str]:
    return [" ".join(WORDS[word] for word in words) for words in random.integers(len(WORDS), size=(count, 11))]


if __name__ == "__main__":
    main()
