"""One SentenceTransformer of text and images: the run's encoder and CLIP's image tower, each with its head.

A Router sends text through Transformer, Pooling, Dense(tanh) and images through Transformer (the image tower
alone), Dense (CLIP's projection, no bias), Dense(tanh), so that plain sentence-transformers computes what the run
was trained to compare: no dalr, no code of ours, no `trust_remote_code`. The image model must be the one that made
the features which the run was trained on; where its checksum is known, it is compared.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dalr.errors import ConfigError, DalrError, ModelFileError, NumericsError, Problem
from dalr.evaluation.runs import recipe_of_run
from dalr.features.source import open_features
from dalr.io.console import Console
from dalr.io.lock import locked_output
from dalr.io.paths import is_file
from dalr.models.absent import require_there
from dalr.models.config import EncoderConfig
from dalr.models.reference import PLUGIN, inside_run
from dalr.models.verification import HEADS, RECORD
from dalr.recipe.paths import expand

if TYPE_CHECKING:
    from PIL.Image import Image
    from sentence_transformers import SentenceTransformer

    from dalr.models.heads import Affine, GroundingHeads
    from dalr.models.vision import VisionModel

TOLERANCE = 1e-6
SENTENCES = ("A dog jumps into the sea.", "", "x.png", "http://example.org/a.jpg", "two children on the beach")
"""Some of which look like files and addresses: they are text."""
_SIDES = ((48, 40), (301, 299), (64, 200))


@dataclass(frozen=True, kw_only=True)
class Multimodal:
    """What was written, and how far its vectors are from those of the run."""

    out: Path
    dimension: int
    space: str
    text: float
    image: float
    checked_features: bool
    """Whether the image model is known to be the one that made the run's features."""

    def lines(self) -> list[str]:
        """For the terminal."""
        lines = [
            f"{self.out}: text and images in {self.dimension} dimensions ({self.space}); largest difference from "
            f"the run: text {self.text:.1e}, images {self.image:.1e}"
        ]
        if not self.checked_features:
            lines.append("note: the run's features do not state which model made them, so it was not compared")
        return lines


def export_multimodal(model: str, vision: str, out: Path, *, console: Console) -> Multimodal:
    """Write the multimodal model of a run.

    Raises:
        ConfigError: a run without grounding heads, or features of another image model.
        ModelFileError: the image model is not a CLIP, or its features do not fit the heads.
        NumericsError: its vectors are not those of the run; nothing is written.
        StorageError: `out` holds something else, or cannot be written.
    """
    from dalr.models.export import seal_model
    from dalr.models.loading import load_encoder
    from dalr.models.vision import load_vision_model

    require_there(model)
    run = expand(model)
    heads = _heads_of(run, model)
    encoder = load_encoder(EncoderConfig(model=inside_run(model)))
    if vision.startswith(PLUGIN):
        what = "expected a CLIP with its projection, found an encoder of a plug-in; others are not exported"
        raise ModelFileError(Problem(where=f"--vision {vision}", what=what))
    clip = load_vision_model(vision, device="cpu")
    projection = _projection_of(clip)
    checked = _compare_features(run, clip)
    expected = heads.image.weight.shape[1] if heads.image is not None else heads.text.weight.shape[0]
    if clip.dim != expected:
        what = f"its image vectors have {clip.dim} dimensions, the run's image head expects {expected}"
        raise ModelFileError(Problem(where=f"--vision {vision}", what=what))
    found: list[tuple[float, float]] = []

    def fill(folder: Path) -> None:
        _build(encoder, clip, projection, heads).save(str(folder), create_model_card=False, safe_serialization=True)
        console.detail("comparing the vectors with those of the run")
        found.append(_differences(folder, encoder, clip, heads))

    with locked_output(out):
        seal_model(out, fill)
    return Multimodal(
        out=out,
        dimension=heads.text.weight.shape[0],
        space=heads.space,
        text=found[0][0],
        image=found[0][1],
        checked_features=checked,
    )


def _heads_of(run: Path, name: str) -> GroundingHeads:
    from dalr.models.heads import read_grounding

    path = run / HEADS
    heads = read_grounding(path) if is_file(path, ModelFileError) else None
    if heads is None:
        what = "no grounding heads, which lead text and images into one space; name a run with grounding"
        raise ConfigError(Problem(where=f"run {name!r}", what=what))
    return heads


def _projection_of(clip: VisionModel) -> Any:
    """CLIP's projection of the image tower into the space shared with text.

    Raises:
        ModelFileError: another kind of image model.
    """
    projection = getattr(clip.network, "visual_projection", None)
    if clip.network.config.model_type not in ("clip", "clip_vision_model") or projection is None:
        what = (
            f"expected a CLIP with its projection, found {clip.network.config.model_type}; others are not exported"
        )
        raise ModelFileError(Problem(where=f"--vision {clip.reference}", what=what))
    return projection


def _compare_features(run: Path, clip: VisionModel) -> bool:
    """Whether the run's features were made by this model; False where nothing tells.

    Raises:
        ConfigError: they were made by another one.
    """
    if not is_file(run / RECORD, ModelFileError):
        return False
    recipe = recipe_of_run(run)
    if recipe.features.image is None:
        return False
    ids = recipe.features.image_ids
    try:
        store = open_features(
            recipe.data.path(recipe.features.image), recipe.data.path(ids) if ids is not None else None
        )
    except DalrError:
        return False  # the run may have been brought to another machine
    made_by = store.source.get("sha256") if store.source.get("kind") != "import" else None
    if made_by is None:
        return False
    if made_by != clip.source["sha256"]:
        what = (
            f"the run's image features were made by {store.source.get('model')!r} (sha256 {str(made_by)[:12]}), "
            f"and this model has sha256 {str(clip.source['sha256'])[:12]}; name the model that made them"
        )
        raise ConfigError(Problem(where=f"--vision {clip.reference}", what=what))
    return True


def _build(
    encoder: SentenceTransformer, clip: VisionModel, projection: Any, heads: GroundingHeads
) -> SentenceTransformer:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    router = Router(
        {
            "text": [*encoder, _dense(heads.text)],
            "image": [
                _image_tower(clip),
                _plain_dense(projection.weight.detach()),
                *([_dense(heads.image)] if heads.image is not None else []),
            ],
        },
        default_route="text",
        route_mappings={(None, "text"): "text", (None, "image"): "image"},
    )
    model = SentenceTransformer(modules=[router], device="cpu")
    model.prompts, model.default_prompt_name = dict(encoder.prompts), encoder.default_prompt_name
    return model.eval()


def _dense(head: Affine) -> Any:
    """A head, with its own arithmetic."""
    import torch
    from sentence_transformers.base.modules import Dense

    outputs, inputs = head.weight.shape
    return Dense(
        inputs,
        outputs,
        activation_function=torch.nn.Tanh() if head.tanh else torch.nn.Identity(),
        init_weight=torch.from_numpy(head.weight.copy()),
        init_bias=torch.from_numpy(head.bias.copy()),
    )


def _plain_dense(weight: Any) -> Any:
    import torch
    from sentence_transformers.base.modules import Dense

    outputs, inputs = weight.shape
    return Dense(
        inputs, outputs, bias=False, activation_function=torch.nn.Identity(), init_weight=weight.float().clone()
    )


def _image_tower(clip: VisionModel) -> Any:
    """The image tower and its processor as a module of sentence-transformers, through a folder of their own."""
    from sentence_transformers.base.modules import Transformer
    from transformers import CLIPVisionModel

    config = clip.network.config
    tower = CLIPVisionModel(getattr(config, "vision_config", config))
    tower.load_state_dict(_tower_weights(clip.network, tower))
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with tempfile.TemporaryDirectory(prefix="dalr-") as folder:
        tower.save_pretrained(folder)
        clip.pixels.processor.save_pretrained(folder)
        return Transformer(
            folder,
            modality_config={"image": {"method": "forward", "method_output_name": "pooler_output"}},
            module_output_name="sentence_embedding",
            model_kwargs={**local, "use_safetensors": True},
            processor_kwargs=local,
            config_kwargs=local,
        )


def _tower_weights(network: Any, tower: Any) -> dict[str, Any]:
    """The parameters of the tower out of the whole model, by the names that the tower alone gives them."""
    known, wanted = network.state_dict(), tower.state_dict().keys()
    prefix = "vision_model."
    return {name: known[name if name in known else f"{prefix}{name}"] for name in wanted}


def _differences(
    folder: Path, encoder: SentenceTransformer, clip: VisionModel, heads: GroundingHeads
) -> tuple[float, float]:
    """Largest differences of text and image vectors of the folder, loaded anew, from those of the run.

    Raises:
        NumericsError: beyond `TOLERANCE`.
    """
    from sentence_transformers import SentenceTransformer

    from dalr.models.embedding import embed

    loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    images = [_made_up(number, sides) for number, sides in enumerate(_SIDES)]
    # dictionaries: among others, a sentence that looks like a file would be taken for one, whatever modality= says
    text = loaded.encode([{"text": each} for each in SENTENCES], show_progress_bar=False)
    image = loaded.encode(images, modality="image", show_progress_bar=False)
    v = clip.embed_images(images)
    expected = (heads.text(embed(encoder, SENTENCES)), heads.image(v) if heads.image is not None else v)
    found = []
    for name, ours, theirs in (("text", expected[0], text), ("images", expected[1], image)):
        gap = float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))
        if not gap <= TOLERANCE:
            what = f"vectors of {name} differ by {gap:.1e} from those of the run, expected at most {TOLERANCE:.0e}"
            raise NumericsError(f"{what}; nothing was written")
        found.append(gap)
    return found[0], found[1]


def _made_up(number: int, sides: tuple[int, int]) -> Image:
    from PIL import Image

    from dalr.seed import generator

    width, height = sides
    pixels = generator(0, "export-image", number).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))
