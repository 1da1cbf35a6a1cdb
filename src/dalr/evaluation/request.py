"""What is asked of an evaluation? The options of `dalr evaluate`, and where the parts of a named model are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from dalr.data.reading import Reading
from dalr.evaluation.tasks import MapMethod
from dalr.io.console import Console
from dalr.io.paths import expanded, is_file
from dalr.models.choices import ComputePrecision, PoolingMode
from dalr.models.config import EncoderConfig
from dalr.models.reference import inside_run
from dalr.models.verification import unverified
from dalr.recipe.paths import expand

_ALL = Reading()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to evaluate on, and how; the options of `dalr evaluate`."""

    data: Path | None = None
    """SentEval's `downstream` layout; not needed for retrieval alone."""
    tasks: Sequence[str] = ("sts",)
    graded_pairs: Mapping[str, Path] = field(default_factory=dict)
    """Name -> your own graded pairs, a file or a folder (`evaluation/graded.py`): a task each, beside `tasks`."""
    mteb: Sequence[str] = ()
    """Names of tasks of the mteb package."""
    classifier: str = "senteval"
    pooling: PoolingMode | None = None
    num_layers: int | None = None
    prompt: str | None = None
    """Name of one of the model's prompts, or a text; None is the model's own default."""
    heads: Path | None = None
    pairs: Path | None = None
    reading: Reading = _ALL
    """How `pairs` is read."""
    features: Path | None = None
    image_ids: Path | None = None
    images: Path | None = None
    """Folder of the images of `pairs`, for a multimodal model."""
    follow_links: Path | None = None
    """Folder that symbolic links in `images` may lead into."""
    device: str = "auto"
    precision: ComputePrecision = "fp32"
    """What sentence vectors are computed in."""
    exclude_overlap: Path | None = None
    """Pairs or text whose sentences were trained on; STS is also scored without them."""
    allow_changed_data: bool = False
    map_method: MapMethod = "pca"
    console: Console = field(default_factory=Console)

    def __post_init__(self) -> None:
        """Paths with `~`, and those that can be nobody's, are the same in Python as on the command line."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Path):
                object.__setattr__(self, each.name, expanded(value, each.name))
        graded = {name: expanded(path, f"graded_pairs {name}") for name, path in self.graded_pairs.items()}
        object.__setattr__(self, "graded_pairs", graded)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the parts of what was named are."""

    name: str
    encoder: EncoderConfig
    heads: Path | None = None
    run: Path | None = None
    in_memory: bool = False
    """A model of a program, whose files are not known."""


def locate(model: str, request: Request) -> Place:
    """The encoder and the heads of a model, a run, or a checkpoint of a run."""
    folder = expand(model) if model.strip() else Path()
    encoder = EncoderConfig(
        model=inside_run(model), pooling=request.pooling, num_layers=request.num_layers, prompt=request.prompt
    )
    if (note := unverified(Path(encoder.model))) is not None:
        request.console.say(note)
    heads = folder / "heads.safetensors"
    return Place(
        name=model,
        encoder=encoder,
        heads=request.heads or (heads if is_file(heads) else None),
        run=folder if is_file(folder / "run.json") else None,
    )
