"""The objective as a loss of a plain `SentenceTransformerTrainer` script.

Text comes in one column, and frozen vectors in columns of numbers beside it: the trainer tokenises every column it
is not told about, so `VectorCollator` takes these out and hands them to the loss with the text they belong to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator
from sentence_transformers.sentence_transformer.modules import Normalize
from torch import Tensor, nn

from dalr.errors import ConfigError, Problem
from dalr.io.paths import regular
from dalr.losses import BatchKind, Need, Objective
from dalr.losses.inputs import Inputs, Targets
from dalr.losses.matryoshka import make_matryoshka
from dalr.models.config import HeadsConfig
from dalr.models.heads import Heads, save_heads
from dalr.models.outputs import inputs_of, truncated_inputs
from dalr.models.verification import verify_heads
from dalr.seed import generator
from dalr.training.batch import derangement

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_VECTOR = "dalr_"
"""What the names of frozen vectors begin with among a text's features."""


@dataclass
class VectorCollator(SentenceTransformerDataCollator):
    """Collator for data sets with one text column and columns of vectors (lists or arrays of floats).

    `VectorCollator(preprocess_fn=model.preprocess)` goes to the trainer as `data_collator`.
    """

    image: str = "image"
    """Column of the image features v, if there is one."""
    clip_text: str = "clip_text"
    """Column of CLIP text features c, if there is one."""
    teachers: tuple[str, ...] = ("teacher",)
    """Columns of teacher vectors, one a teacher; those that a data set lacks are left out."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch as the trainer wants it, with the vectors among the features of the text.

        Raises:
            ConfigError: not exactly one column is left for the text.
        """
        roles = {self.image: "image", self.clip_text: "clip_text"}
        roles |= {column: f"teacher_{number}" for number, column in enumerate(self.teachers)}
        present = {column: role for column, role in roles.items() if column in features[0]}
        rest = [{key: value for key, value in row.items() if key not in present} for row in features]
        texts = [key for key in rest[0] if key not in (*self.valid_label_columns, "dataset_name")]
        if len(texts) != 1:
            what = f"expected one column of text beside those of vectors ({', '.join(roles)}), found {texts}"
            raise ConfigError(Problem(where="data set", what=what))
        batch: dict[str, Any] = super().__call__(rest)
        for column, role in present.items():
            rows = np.asarray([row[column] for row in features], dtype=np.float32)
            batch[f"{texts[0]}_{_VECTOR}{role}"] = torch.from_numpy(rows)
        return batch


class ObjectiveLoss(nn.Module):
    """An `Objective` over two dropout passes of each text, with heads and frozen vectors.

        loss = ObjectiveLoss(model, Objective.model_validate({"infonce": {}, "grounding": {"weight": 0.1}}),
                             image_dim=512)
        SentenceTransformerTrainer(model=model, args=args, train_dataset=dataset, loss=loss,
                                   data_collator=VectorCollator(preprocess_fn=model.preprocess)).train()
        loss.save_heads("heads.safetensors")

    A batch with image features has all terms, one without has those that apply to text; an objective that needs no
    images has all of its terms on every batch. The trainer logs each weighted term.

    Limits, all of them the trainer's, which knows nothing of parameters inside a loss:
    - the heads are optimised, with weight decay, but neither saved nor restored with checkpoints (`save_heads`
      writes them, `load_heads` reads them back) nor clipped by `max_grad_norm`;
    - with several processes each has its own negatives, and its own heads, which drift apart: use one;
    - the derangement and the order of ties are drawn from (seed, forward passes so far), and that count begins
      anew with a resumed training;
    - batches may hold a text twice, which is a false negative: set `batch_sampler="no_duplicates"`;
    - the trainer's model card publishes training sentences.
    `dalr train` has none of these limits.

    Args:
        model: the student, with pooling and without a Normalize module at its end.
        objective: terms without token states of teachers (`global_to_local`).
        heads: as in a recipe.
        image_dim, clip_text_dim: dimensions of the vectors, where the terms need them.
        teacher_weights: α of each teacher column.
        matryoshka_dims, matryoshka_weights: dimensions to train at, as `training.matryoshka_dims` of a recipe.
        seed: of heads, derangements and ties.

    Raises:
        ConfigError: what the objective needs and is not given, all at once.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        objective: Objective,
        *,
        heads: HeadsConfig | None = None,
        image_dim: int | None = None,
        clip_text_dim: int | None = None,
        teacher_weights: Sequence[float] = (1.0,),
        matryoshka_dims: Sequence[int] = (),
        matryoshka_weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        dim = model.get_embedding_dimension()
        assert dim is not None
        needs = objective.all_needs()
        _require(model, needs, image_dim=image_dim, clip_text_dim=clip_text_dim)
        temperatures = {
            name: bounds for name, term in objective.active() if (bounds := term.learns_temperature) is not None
        }
        self.model = model
        self.objective = objective
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.heads = Heads(
                heads or HeadsConfig(),
                student_dim=dim,
                image_dim=image_dim,
                clip_text_dim=clip_text_dim,
                needs=needs,
                temperatures=temperatures,
            )
        self.teacher_weights = tuple(teacher_weights)
        self.matryoshka = make_matryoshka(matryoshka_dims, matryoshka_weights)
        self.seed = seed
        self.passes = 0
        """Forward passes in training mode so far."""

    def forward(
        self, sentence_features: Iterable[Mapping[str, Any]], labels: Tensor | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Each term times its weight, by name; the trainer adds them up. Labels are not read.

        Raises:
            ConfigError: vectors that the terms of this batch need are not in the data set.
        """
        [features] = sentence_features
        inputs = self.inputs(features)
        kind = self._kind(inputs)
        if self.matryoshka is None:
            losses = self.objective(inputs, kind)
        else:
            several = [truncated_inputs(self.heads, inputs, dim) for dim in self.matryoshka.dims]
            losses = self.matryoshka.averaged([self.objective(each, kind) for each in several])
        self.passes += self.training
        return {name: getattr(self.objective, name).weight * value for name, value in losses.terms.items()}

    def inputs(self, features: Mapping[str, Any]) -> Inputs:
        """The inputs of one tokenised text column with the vectors that `VectorCollator` put beside it."""
        given = {key.removeprefix(_VECTOR): value for key, value in features.items() if key.startswith(_VECTOR)}
        h_a, h_b = self._two_passes({k: v for k, v in features.items() if not k.startswith(_VECTOR)})
        image = given.get("image")
        groups = torch.unique(image, dim=0, return_inverse=True)[1] if image is not None else None
        order = generator(self.seed, "ties", self.passes).permutation(len(h_a))
        teachers = tuple(given[f"teacher_{n}"] for n in range(len(given)) if f"teacher_{n}" in given)
        targets = Targets(
            tie_order=torch.from_numpy(order).to(h_a.device),
            image=image,
            same_image=groups[:, None] == groups[None] if groups is not None else None,
            clip_text=given.get("clip_text"),
            unmatched=self._unmatched(groups),
            teachers=teachers,
            teacher_weights=self.teacher_weights if teachers else (),
        )
        self._require_given(targets)
        with torch.autocast(h_a.device.type, enabled=False):  # heads are fp32, whatever the trainer's precision
            return inputs_of(self.heads, h_a, h_b, targets)

    def save_heads(self, path: str | Path) -> None:
        """Write the heads as `dalr train` does (`heads.safetensors`): the trainer does not save them."""
        save_heads(self.heads, Path(path))

    def load_heads(self, path: str | Path) -> None:
        """Take the heads from a file of `save_heads`, such as before a training goes on.

        Raises:
            RuntimeError: heads of another objective or other dimensions.
            CorruptFileError: the file is not as its run or checkpoint wrote it.
        """
        from safetensors.torch import load_file

        verify_heads(Path(path))
        self.heads.load_state_dict(load_file(regular(Path(path))))

    def _two_passes(self, features: Mapping[str, Any]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        twice = {key: torch.cat([v, v]) if isinstance(v, Tensor) and v.ndim else v for key, v in features.items()}
        first, second = self.model(twice)["sentence_embedding"].float().chunk(2)
        return first, second

    def _kind(self, targets: Targets) -> BatchKind:
        return "pair" if targets.image is not None or Need.IMAGE not in self.objective.needs("pair") else "text"

    def _unmatched(self, groups: Tensor | None) -> Tensor | None:
        if groups is None:
            return None
        other = derangement(groups.cpu().numpy(), generator(self.seed, "derangement", self.passes))
        return torch.from_numpy(other).to(groups.device) if other is not None else None

    def _require_given(self, targets: Targets) -> None:
        needs = self.objective.needs(self._kind(targets))
        problems = []
        if Need.CLIP_TEXT in needs and targets.clip_text is None:
            problems.append(
                Problem(where="data set", what="the terms need CLIP text features, found no such column")
            )
        if Need.TEACHERS in needs and len(targets.teachers) != len(self.teacher_weights):
            what = f"{len(self.teacher_weights)} teacher_weights, but {len(targets.teachers)} teacher columns"
            problems.append(Problem(where="data set", what=what))
        if problems:
            raise ConfigError(problems)


def _require(
    model: SentenceTransformer, needs: frozenset[Need], *, image_dim: int | None, clip_text_dim: int | None
) -> None:
    """Everything that the objective needs and is not there, at once."""
    problems = []
    if isinstance(list(model)[-1], Normalize):
        what = "ends in a Normalize module; give SentenceTransformer(modules=list(model)[:-1]): heads read h itself"
        problems.append(Problem(where="model", what=what))
    if Need.TEACHER_TOKENS in needs:
        what = "global_to_local reads token states of teachers, which are no vectors; `dalr train` has it"
        problems.append(Problem(where="objective", what=what))
    if Need.CANDIDATES in needs:
        what = (
            "grounding.candidates are images beyond the batch, which a trainer's batch lacks; `dalr train` has it"
        )
        problems.append(Problem(where="objective", what=what))
    for need, name, dim in (
        (Need.IMAGE, "image_dim", image_dim),
        (Need.CLIP_TEXT, "clip_text_dim", clip_text_dim),
    ):
        if need in needs and dim is None:
            problems.append(Problem(where=name, what=f"the terms need {need}; pass their dimension"))
    if problems:
        raise ConfigError(problems)
