"""The demo's recipes, written as files beside its world, so that a reader can train any of them again.

Every method starts from the same student and sees the same batches for the same number of steps. The weights
were chosen on the dev pairs of worlds with other seeds than the default one.
"""

from __future__ import annotations

from pathlib import Path

from dalr.demo.world import WorldFiles
from dalr.io.atomic import write_text

METHODS = ("simcse", "rankcse", "mcse", "kdmcse", "dalr")
TEACHERS = ("teacher-1", "teacher-2")

_BASE = """\
name: demo-{name}
description: {description}
seed: {seed}
data:
  pairs: {pairs}
  text: {text}
  held_out_images: {held_out}
student:
  model: {student}
  pooling: mean
heads:
  sentence: false
  grounding_dim: 128
  aligner_dim: 128
objective:
  infonce: {{temperature: 0.05}}
training:
  batch_size: 64
  max_steps: {steps}
  learning_rate: {learning_rate}
  schedule: {{kind: every_k, k: 2}}
  log_every: 20
development:
  kind: tsv
  data: {dev}
  every: 50
"""

_EXTRAS = {
    "simcse": "",
    "rankcse": """\
teachers:{teachers}
objective:
  list_net: {{weight: 1.0, temperature: 0.1, teacher_temperature: 0.1, on_text: true}}
  consistency_js: {{weight: 1.0, on_text: true}}
""",
    "mcse": """\
features: {{image: {image}, image_ids: {image_ids}}}
objective:
  grounding: {{weight: 1.0, soft_margin: false}}
""",
    "kdmcse": """\
features: {{image: {image}, image_ids: {image_ids}}}
objective:
  infonce: {{margin: 0.1}}
  grounding: {{weight: 1.0, margin: 0.1}}
""",
    "dalr": """\
features: {{image: {image}, image_ids: {image_ids}}}
teachers:{teachers}
objective:
  infonce: {{margin: 0.1}}
  grounding: {{weight: 1.0, margin: 0.1}}
  consistency: {{weight: 0.01}}
  cross_modal_alignment: {{weight: 0.3}}
  list_net: {{weight: 1.0, temperature: 0.1, teacher_temperature: 0.1, on_text: true}}
  intra_modal_alignment: {{weight: 0.2}}
""",
}

_DESCRIPTIONS = {
    "teacher-1": "first teacher, trained on the spot by MCSE",
    "teacher-2": "second teacher, trained on the spot by MCSE under another seed",
    "simcse": "SimCSE on the demo's world",
    "rankcse": "RankCSE on the demo's world",
    "mcse": "MCSE on the demo's world",
    "kdmcse": "KDMCSE (image branch) on the demo's world",
    "dalr": "DALR on the demo's world",
}


def write_recipes(
    folder: Path,
    world: WorldFiles,
    *,
    student: Path,
    teachers: dict[str, Path],
    held_out: int,
    steps: int,
    teacher_steps: int,
    seed: int,
) -> dict[str, Path]:
    """Write one recipe file per teacher and method; returns the files by name."""
    common = {
        "pairs": world.pairs,
        "text": world.text,
        "dev": world.sts_dev,
        "student": student,
        "held_out": held_out,
        "learning_rate": "1e-3",
    }
    pictures = {"image": world.image_matrix, "image_ids": world.image_ids}
    files: dict[str, Path] = {}
    for number, name in enumerate(TEACHERS):
        files[name] = folder / f"{name}.yaml"
        base = _BASE.format(
            name=name, description=_DESCRIPTIONS[name], steps=teacher_steps, seed=seed + 1000 + number, **common
        )
        write_text(files[name], _with_extra(base, _EXTRAS["mcse"].format(**pictures)))
    items = "".join(f"\n  - {{model: {path}, weight: 0.5}}" for path in teachers.values())
    for name in METHODS:
        extra = _EXTRAS[name].format(teachers=items, **pictures)
        base = _BASE.format(name=name, description=_DESCRIPTIONS[name], steps=steps, seed=seed, **common)
        files[name] = folder / f"{name}.yaml"
        write_text(files[name], _with_extra(base, extra))
    return files


def _with_extra(base: str, extra: str) -> str:
    """A recipe with the method's sections in place of its plain objective."""
    head, marker, terms = extra.partition("objective:\n")
    if not marker:
        return base
    plain = "  infonce: {temperature: 0.05}\n"
    joined = terms if "infonce:" in terms else plain + terms
    return base.replace("objective:\n" + plain, f"{head}objective:\n{joined}")
