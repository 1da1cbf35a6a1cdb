"""Where do the demo's frozen teachers come from? Trained on scenes that no other part of the world uses.

`clip` sees pictures and reads captions: a small convolutional tower over pixels and a small BERT, drawn together
by the contrastive loss of CLIP (Radford et al. 2021). Two teachers read text alone, as the papers' did: one
learns from paraphrases (two sentences with the same facts), one from two captions of one scene, which is how
general sentence encoders are trained on caption data. None of them ever sees the graded pairs, or a scene of
the data set, of dev or of test.

All three are one loop: two towers, rows that belong together, cross entropy over the batch in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor, nn

from dalr.demo.picture import draw_image
from dalr.demo.student import DIM, write_student
from dalr.demo.world import World, WorldFiles, image_rng
from dalr.io.console import Console
from dalr.losses import functional
from dalr.models.config import EncoderConfig
from dalr.models.embedding import pad, pad_token_id, pooled
from dalr.models.export import save_model
from dalr.models.loading import load_encoder
from dalr.seed import derive_seed, generator

if TYPE_CHECKING:
    from PIL.Image import Image
    from sentence_transformers import SentenceTransformer

CLIP = "clip"
TEXT_TEACHERS = ("teacher-paraphrases", "teacher-captions")
SHARED_DIM = 96  # of clip's space
SEEN_PIXELS = 48
_BATCH = 96
_LEARNING_RATE = 1e-3
_CLIP_TEMPERATURE, _TEXT_TEMPERATURE = 0.07, 0.05
_PIXEL_MEAN, _PIXEL_DEVIATION = 130.0, 70.0

Pixels = UInt8[np.ndarray, "n side side 3"]
Tower = Callable[[Int64[np.ndarray, " n"]], Float[Tensor, "n w"]]
"""Rows to their vectors, with gradient."""


@dataclass(frozen=True, kw_only=True)
class TeacherSteps:
    """How long the teachers are trained."""

    clip: int = 400
    text: int = 150


@dataclass(frozen=True, kw_only=True)
class ImageTextTeacher:
    """The trained `clip`: pixels and sentences to one space."""

    image_tower: nn.Module
    text_folder: Path
    """The text tower, a SentenceTransformer folder."""

    def see(self, pixels: Pixels) -> Float32[np.ndarray, "n w"]:
        """Image features, not normalised."""
        self.image_tower.eval()
        with torch.inference_mode():
            parts = [self.image_tower(as_input(pixels[row : row + 200])) for row in range(0, len(pixels), 200)]
        return torch.cat(parts).numpy()


class ImageTower(nn.Module):
    """Four convolutions and a linear map that keeps places apart, since left and above are to be seen."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 5, stride=2, padding=2),
            nn.GroupNorm(4, 24),
            nn.ReLU(),
            nn.Conv2d(24, 48, 3, stride=2, padding=1),
            nn.GroupNorm(4, 48),
            nn.ReLU(),
            nn.Conv2d(48, 96, 3, stride=2, padding=1),
            nn.GroupNorm(4, 96),
            nn.ReLU(),
            nn.Conv2d(96, 64, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (SEEN_PIXELS // 8) ** 2, dim),
        )

    def forward(self, pixels: Float[Tensor, "n 3 side side"]) -> Float[Tensor, "n w"]:
        vectors: Tensor = self.layers(pixels)
        return vectors


def seen(image: Image) -> UInt8[np.ndarray, "side side 3"]:
    """A picture as the image tower gets it: RGB, smaller."""
    from PIL.Image import Resampling

    small = image.convert("RGB").resize((SEEN_PIXELS, SEEN_PIXELS), Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


def as_input(pixels: Pixels) -> Float[Tensor, "n 3 side side"]:
    values = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float()
    return (values - _PIXEL_MEAN) / _PIXEL_DEVIATION


def train_image_text_teacher(
    world: World, files: WorldFiles, out: Path, *, steps: int, console: Console
) -> ImageTextTeacher:
    """Train `clip` on the pictures and captions of the upbringing; its towers are written into `out`."""
    from safetensors.torch import save_file

    from dalr.io.atomic import write_with

    pictures = world.upbringing
    with console.bar("draw the teachers' pictures", len(pictures), "picture") as bar:
        drawn = []
        for number, picture in enumerate(pictures, start=1):
            drawn.append(seen(draw_image(picture.scene, image_rng(picture, seed=world.seed))))
            bar.update(number)
    pixels = np.stack(drawn)
    encoder = _new_encoder(CLIP, out, files, seed=world.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(world.seed, "demo", CLIP))
        images = ImageTower(SHARED_DIM)
        encoder.append(_linear(DIM, SHARED_DIM))
        captions = _tower(encoder, [caption for picture in pictures for caption in picture.captions])
        told = len(pictures[0].captions)
        chosen = generator(world.seed, "demo", CLIP, "captions")
        _draw_together(
            lambda rows: images(as_input(pixels[rows])),
            lambda rows: captions(rows * told + chosen.integers(told, size=len(rows))),
            modules=(images, encoder),
            rows=len(pictures),
            steps=steps,
            temperature=_CLIP_TEMPERATURE,
            seed=world.seed,
            name=CLIP,
            console=console,
        )
    encoder.eval()
    save_model(encoder, out / "text")
    tensors = {name: tensor.contiguous() for name, tensor in images.state_dict().items()}
    write_with(out / "image.safetensors", lambda temporary: save_file(tensors, temporary))
    return ImageTextTeacher(image_tower=images, text_folder=out / "text")


def train_text_teachers(
    world: World, files: WorldFiles, out: Path, *, steps: int, console: Console
) -> dict[str, Path]:
    """Train the teachers of text on the sentences of the upbringing; returns their folders by name."""
    sources = {
        TEXT_TEACHERS[0]: world.paraphrases(),
        TEXT_TEACHERS[1]: [(picture.captions[0], picture.captions[1]) for picture in world.upbringing],
    }
    folders = {}
    for name, pairs in sources.items():
        encoder = _new_encoder(name, out / name, files, seed=world.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(world.seed, "demo", name))
            _draw_together(
                _tower(encoder, [first for first, _ in pairs]),
                _tower(encoder, [second for _, second in pairs]),
                modules=(encoder,),
                rows=len(pairs),
                steps=steps,
                temperature=_TEXT_TEMPERATURE,
                seed=world.seed,
                name=name,
                console=console,
            )
        encoder.eval()
        folders[name] = out / name / "model"
        save_model(encoder, folders[name])
    return folders


def _new_encoder(name: str, out: Path, files: WorldFiles, *, seed: int) -> SentenceTransformer:
    write_student(out / "untrained", files.vocabulary, seed=seed, name=name)
    return load_encoder(EncoderConfig(model=str(out / "untrained"), pooling="mean"))


def _linear(inputs: int, outputs: int) -> nn.Module:
    from sentence_transformers.sentence_transformer.modules import Dense

    return Dense(inputs, outputs, bias=False, activation_function=nn.Identity())


def _tower(encoder: SentenceTransformer, sentences: Sequence[str]) -> Tower:
    """Row i of the tower is sentence i, tokenised once."""
    tokens: list[list[int]] = encoder.tokenizer(list(sentences))["input_ids"]
    pad_id = pad_token_id(encoder)

    def vectors(rows: Int64[np.ndarray, " n"]) -> Float[Tensor, "n w"]:
        ids, mask = pad([tokens[row] for row in rows.tolist()], pad_id=pad_id)
        return pooled(encoder, ids, mask)

    return vectors


def _draw_together(
    first: Tower,
    second: Tower,
    *,
    modules: Sequence[nn.Module],
    rows: int,
    steps: int,
    temperature: float,
    seed: int,
    name: str,
    console: Console,
) -> None:
    """Train so that row i of one tower is nearest to row i of the other; Adam, learning rate falling to 0."""
    for module in modules:
        module.train()
    parameters = [parameter for module in modules for parameter in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    random = generator(seed, "demo", name, "rows")
    with console.bar(f"train {name}", steps, "step") as bar:
        for step in range(1, steps + 1):
            chosen = random.choice(rows, size=min(_BATCH, rows), replace=False)
            logits = functional.cosine_matrix(first(chosen), second(chosen)) / temperature
            loss = functional.own_cross_entropy(logits) + functional.own_cross_entropy(logits.T)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            bar.update(step, loss=f"{loss.item() / 2:.3f}" if step % 20 == 0 or step == steps else "…")
