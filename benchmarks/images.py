"""How fast pictures become vectors, against decoding alone and the model alone, and what a kill costs.

    python benchmarks/images.py --photos FOLDER [--work DIR] [--models base,small]

FOLDER holds `captions.jsonl` and `images/`. The models are random, made on the spot with a tokenizer of the
captions' words: a CLIP of ViT-B/32's shape, and a small one whose cost is next to nothing, so that decoding is the
bound. The three rates of a model are measured in turns on halves of the photos in one process, because rates of a
shared machine are comparable only side by side. Alone, decoding and the model each have all cores; together they
share them, so that the rate of both after each other is what a machine of few cores allows.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from dalr.features.decode_ahead import ImageBatch, available_cores, decoded_ahead
from dalr.features.images import write_image_store
from dalr.features.part import WORK
from dalr.features.store import open_store, write_store
from dalr.io.console import Console
from dalr.io.text import read_lines
from dalr.models.vision import VisionModel, load_vision_model

BATCH = 32
TURNS = 3
SHAPES = {
    "base": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "small": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/images-benchmark"))
    parser.add_argument("--models", default="base,small")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the store that is read; 0 skips it")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    captions = options.photos / "captions.jsonl"
    ids = [json.loads(line)["image"] for line in read_lines(captions)]
    for name in options.models.split(","):
        folder = make_clip(options.work / name, captions, SHAPES[name])
        rates(name, load_vision_model(str(folder), device="cpu"), ids, options.photos / "images", options.work)
        kills(name, folder, options.photos, options.work)
    if options.rows:
        reads(options.work / "rows", options.rows)


def make_clip(folder: Path, captions: Path, shape: dict[str, int]) -> Path:
    """A random CLIP over 224 pixels in patches of 32, with a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    sentences = (caption for line in read_lines(captions) for caption in json.loads(line)["captions"])
    words.train_from_iterator(
        sentences, trainers.WordLevelTrainer(special_tokens=["<pad>", "<unk>", "<s>", "</s>"])
    )
    words.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": words.get_vocab_size(), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=shape | {"patch_size": 32}, projection_dim=512)
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


def rates(name: str, model: VisionModel, ids: list[str], root: Path, work: Path) -> None:
    """Images a second of the whole, decoding alone and the model alone, in turns over halves of the photos."""
    found: dict[str, list[float]] = {"decoding alone": [], "model alone": [], "dalr features images": []}
    for turn in range(TURNS):
        some = ids[turn % 2 :: 2]
        files = [(number, root / image) for number, image in enumerate(some)]
        batches = [ImageBatch(files=tuple(files[start : start + BATCH])) for start in range(0, len(files), BATCH)]
        pixels = [batch.pixels for batch in decoded_ahead(batches, model.pixels)]
        with Timed(found["decoding alone"], len(some)):
            for _ in decoded_ahead(batches, model.pixels):
                pass
        with Timed(found["model alone"], len(some)):
            for batch in pixels:
                model.vectors(batch)
        with Timed(found["dalr features images"], len(some)):
            write_image_store(
                work / f"{name}-{turn}", ids=some, root=root, model=model, console=Console(quiet=True)
            )
    for what, several in found.items():
        print(f"{name}: {what}: {statistics.median(several):.1f} images/s ({_listed(several, '.1f')})")
    alone = list(zip(found["decoding alone"], found["model alone"], strict=True))
    bounds = {
        "the slower one": [min(pair) for pair in alone],
        "both after each other on the same cores": [1 / sum(1 / rate for rate in pair) for pair in alone],
    }
    for what, several in bounds.items():
        shares = [whole / bound for whole, bound in zip(found["dalr features images"], several, strict=True)]
        print(f"{name}: {statistics.median(shares):.2f} of {what} ({_listed(shares, '.2f')})")
    print(f"{name}: {available_cores()} cores, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")


def _listed(values: list[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)


class Timed:
    """Appends images a second to `rates`."""

    def __init__(self, rates: list[float], images: int) -> None:
        self.rates, self.images = rates, images

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.rates.append(self.images / (time.perf_counter() - self.start))


def kills(name: str, model: Path, photos: Path, work: Path) -> None:
    """kill -9 of the command and its workers at three points; the resumed store against an uninterrupted one."""
    captions = work / "captions.jsonl"
    captions.write_bytes((photos / "captions.jsonl").read_bytes())
    whole = work / f"{name}-whole"
    start = time.monotonic()
    run = command(captions, photos, model, whole)
    subprocess.run(run, check=True)
    seconds = time.monotonic() - start
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"{name}: peak memory of the largest process {children / 1024:.0f} MB; {seconds:.1f} s with start-up")
    for sealed in (0, 1, 3):
        out = work / f"{name}-killed-{sealed}"
        process = subprocess.Popen(command(captions, photos, model, out), start_new_session=True)
        while (process.poll() is None and not (out / WORK).is_dir()) or parts_of(out) < sealed:
            time.sleep(0.01)
        time.sleep(seconds / 50)  # somewhere inside the next part
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        parts = parts_of(out)
        resumed = [*command(captions, photos, model, out), "--resume"]
        again = subprocess.run(resumed, check=True, capture_output=True, text=True)
        same = "identical" if contents(out) == contents(whole) else "DIFFERENT"
        print(f"{name}: killed with {parts} parts sealed, resumed: {same} bytes; {again.stdout.strip()}")


def parts_of(out: Path) -> int:
    return len(list(out.glob(f"{WORK}/part-*/manifest.json")))


def command(captions: Path, photos: Path, model: Path, out: Path) -> list[str]:
    dalr = [sys.executable, "-m", "dalr", "features", "images", "--quiet", "--device", "cpu"]
    paths = {"--pairs": captions, "--images": photos / "images", "--model": model, "--out": out}
    return [*dalr, *(str(each) for pair in paths.items() for each in pair)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def reads(folder: Path, rows: int, dim: int = 768, batch: int = 128) -> None:
    """Milliseconds for a random batch, and resident memory before and after many of them."""
    random = np.random.default_rng(0)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, rows, 16_384):
            yield random.standard_normal((min(16_384, rows - start), dim), dtype=np.float32).astype(np.float16)

    write_store(folder, ids=[f"{row}.jpg" for row in range(rows)], blocks=blocks(), source={}, origin="random")
    store = open_store(folder)
    store.read(random.integers(0, rows, 4 * batch))
    before, spent = resident(), []
    for _ in range(3_000):
        wanted = random.integers(0, rows, batch)
        start = time.perf_counter()
        store.read(wanted)
        spent.append(1000 * (time.perf_counter() - start))
    median, slow = np.percentile(spent, [50, 95])
    print(f"reads of {batch} x {dim} from {rows} rows: median {median:.2f} ms, 95 % below {slow:.2f} ms")
    print(f"resident memory: {before} MB before, {resident()} MB after {len(spent) * batch} rows")
    shutil.rmtree(folder)


def resident() -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


if __name__ == "__main__":
    main()
