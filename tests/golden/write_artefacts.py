"""Write the artefacts of this version: `python tests/golden/write_artefacts.py`, once a release.

A run of a very small student that was cut after step 2, what it starts from, and what came out in the end.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tiny import captions, recipe_tree, save_tiny_bert, write_data, write_recipe  # noqa: E402

SETTINGS = ("training.save_every=2", "validation.every=2", "training.max_steps=4", "heads.sentence=true")


def main() -> None:
    import dalr
    from dalr.io.console import Console
    from dalr.training.progress import Progress

    target = HERE / "artefacts" / dalr.__version__
    target.mkdir(parents=True)
    os.chdir(tempfile.mkdtemp())  # paths in what is written are relative
    student = save_tiny_bert(Path("student"), dim=4, layers=1)
    recipe = write_recipe(Path("recipe.yaml"), recipe_tree(write_data(Path("data")), student))
    save = Progress.save

    def cut(self: Progress, step: int) -> None:
        save(self, step)
        shutil.copytree(self.out, target / "run", ignore=shutil.ignore_patterns(".lock"))

    Progress.save = cut  # type: ignore[method-assign]
    result = dalr.train(recipe, overrides=SETTINGS, out="run", console=Console(quiet=True))
    shutil.copytree(student, target / "student")
    record = json.loads((target / "run" / "run.json").read_text())
    (target / "run" / "run.json").write_text(json.dumps(record | {"machine": {}, "git_commit": None}, indent=1))
    [checkpoint] = (target / "run" / "checkpoints").iterdir()
    expected = {"checkpoint": vectors(checkpoint / "model"), "model": vectors(result.model)}
    (target / "expected.json").write_text(json.dumps(expected))


def vectors(model: Path) -> list[list[float]]:
    from dalr.models.config import EncoderConfig
    from dalr.models.embedding import embed
    from dalr.models.loading import load_encoder

    found: list[list[float]] = embed(load_encoder(EncoderConfig(model=str(model))), captions(3)).tolist()
    return found


if __name__ == "__main__":
    main()
