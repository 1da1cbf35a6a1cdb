"""A SentEval folder of made-up sentences, six pairs a subset."""

from __future__ import annotations

from pathlib import Path

SUBSETS = {
    "STS12": ("MSRpar", "MSRvid", "SMTeuroparl", "surprise.OnWN", "surprise.SMTnews"),
    "STS13": ("FNWN", "headlines", "OnWN"),
    "STS14": ("deft-forum", "deft-news", "headlines", "images", "OnWN", "tweet-news"),
    "STS15": ("answers-forums", "answers-students", "belief", "headlines", "images"),
    "STS16": ("answer-answer", "headlines", "plagiarism", "postediting", "question-question"),
}
PAIRS = 6


def write_senteval(folder: Path) -> Path:
    """All STS tasks in SentEval's `downstream` layout."""
    for year, subsets in SUBSETS.items():
        place = folder / "STS" / f"{year}-en-test"
        place.mkdir(parents=True)
        for subset in subsets:
            rows = [f"{subset} dog {n}\t{subset} cat {'runs ' * n}{year}\n" for n in range(PAIRS)]
            (place / f"STS.input.{subset}.txt").write_text("".join(rows))
            (place / f"STS.gs.{subset}.txt").write_text("".join(f"{0.75 * n}\n" for n in range(PAIRS)))
    place = folder / "STS" / "STSBenchmark"
    place.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        rows = [f"g\tf\t2012\t{n}\t{n / 2}\t{split} dog {n}\t{split} cat {'eats ' * n}\n" for n in range(PAIRS)]
        (place / f"sts-{split}.csv").write_text("".join(rows))
    place = folder / "SICK"
    place.mkdir()
    header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n"
    rows = [f"{n}\tsick dog {n}\tsick cat {'swims ' * n}\t{1 + n / 2}\tNEUTRAL\n" for n in range(PAIRS)]
    (place / "SICK_test_annotated.txt").write_text(header + "".join(rows))
    return folder
