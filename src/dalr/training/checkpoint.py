"""What is a checkpoint? A sealed folder `checkpoints/step-000120` with the exported model and the heads.

A checkpoint holds the SentenceTransformer exactly as it is exported, so the product is a copy of the best one,
byte for byte. A new best is sealed before the previous one is removed, which stays as long as a resume point
names it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.errors import StorageError
from dalr.io.atomic import storage_errors, write_bytes
from dalr.io.paths import exists, regular
from dalr.io.sealed import (
    MANIFEST,
    file_sha256,
    read_manifest,
    remove_sealed,
    verify_sealed,
    well_formed,
    write_sealed,
)
from dalr.models.config import EncoderConfig
from dalr.models.export import save_encoder, seal_model
from dalr.models.heads import save_heads
from dalr.models.loading import encoder_sha256
from dalr.models.verification import CHECKPOINT, HEADS, MODEL, VERSION

if TYPE_CHECKING:
    from dalr.training.module import TrainingTask

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A sealed checkpoint and the validation score it was kept for."""

    folder: Path
    step: int
    score: float | None


def save_checkpoint(task: TrainingTask, run: Path, *, step: int, score: float | None) -> Checkpoint:
    folder = checkpoint_folder(run, step)

    def fill(temporary: Path) -> None:
        save_encoder(task.student, temporary / MODEL)
        student = encoder_sha256(EncoderConfig(model=str(temporary / MODEL)))
        save_heads(task.heads, temporary / HEADS, student=student)

    metadata: Mapping[str, object] = {"step": step, "score": score}
    if exists(folder, StorageError):  # of a run that went on from before it; no resume point names it
        remove_sealed(folder)
    write_sealed(folder, format=CHECKPOINT, version=VERSION, metadata=metadata, fill=fill)
    return Checkpoint(folder=folder, step=step, score=score)


def read_checkpoint(folder: Path) -> Checkpoint:
    """A checkpoint whose every byte is as it was sealed.

    Raises:
        CorruptFileError: not a sealed checkpoint, or damaged.
    """
    remedy = "take another checkpoint"
    manifest = read_manifest(folder, format=CHECKPOINT, version=VERSION, remedy=remedy)
    verify_sealed(folder, manifest, remedy=remedy)
    with well_formed(folder, remedy=remedy):
        score = manifest.metadata["score"]
        return Checkpoint(
            folder=folder,
            step=int(manifest.metadata["step"]),
            score=float(score) if score is not None else None,
        )


def keep_checkpoints(run: Path, steps: Collection[int]) -> None:
    """Remove all checkpoints but those of these steps."""
    kept = {checkpoint_folder(run, step).name for step in steps}
    for folder in sorted((run / CHECKPOINTS).glob("step-*")):
        if folder.name not in kept:
            remove_sealed(folder)


def checkpoint_folder(run: Path, step: int) -> Path:
    return run / CHECKPOINTS / f"step-{step:06d}"


def publish(checkpoint: Checkpoint, run: Path) -> dict[str, str]:
    """Copy the checkpoint's model and heads to where users look for them: `model/`, `heads.safetensors`.

    Returns:
        The checksums of the model's manifest and of the heads, for `run.json`.

    Raises:
        CorruptFileError: the checkpoint is not as it was sealed.
    """
    read_checkpoint(checkpoint.folder)
    source, model, heads = checkpoint.folder / MODEL, run / MODEL, run / HEADS
    with storage_errors(model):
        seal_model(model, lambda temporary: _copy_into(source, temporary))
        write_bytes(heads, regular(checkpoint.folder / HEADS).read_bytes())
        return {f"{MODEL}/{MANIFEST}": file_sha256(model / MANIFEST), HEADS: file_sha256(heads)}


def _copy_into(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
