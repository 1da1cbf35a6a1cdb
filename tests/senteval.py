"""A SentEval folder of made-up sentences: six pairs a subset, 15 examples or more of each class."""

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
    return write_transfer(folder)


BINARY = {
    "MR": ("rt-polarity.pos", "rt-polarity.neg"),
    "CR": ("custrev.pos", "custrev.neg"),
    "SUBJ": ("subj.objective", "subj.subjective"),
    "MPQA": ("mpqa.pos", "mpqa.neg"),
}
EXAMPLES = 15
"""Of each class in each split."""


def write_transfer(folder: Path) -> Path:
    """All transfer tasks in SentEval's `downstream` layout; the classes can be told apart by their letters."""
    for task, names in BINARY.items():
        (folder / task).mkdir(parents=True)
        for name, word in zip(names, ("fine", "drab"), strict=True):
            rows = [f"{word} film {'very ' * (n % 4)}number {n} \n" for n in range(EXAMPLES)]
            (folder / task / name).write_text("".join(rows))
    place = folder / "SST" / "binary"
    place.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        rows = [f"{split} {'fine' if n % 2 else 'drab'} {n}\t{n % 2}\n" for n in range(2 * EXAMPLES)]
        (place / f"sentiment-{split}").write_text("".join(rows))
    place = folder / "TREC"
    place.mkdir()
    for name in ("train_5500.label", "TREC_10.label"):
        rows = [
            f"{label}:kind {word} {'café ' * (n % 3)}is {n} ?\n"
            for n in range(EXAMPLES)
            for label, word in zip(
                ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"),
                ["what", "how", "which", "who", "where", "many"],
                strict=False,
            )
        ]
        (place / name).write_bytes("".join(rows).encode("latin-1"))
    place = folder / "MRPC"
    place.mkdir()
    for name in ("train", "test"):
        rows = [f"1\t{n}\t{n}\tthe dog eats {n}\tthe dog eats {n} now\n" for n in range(EXAMPLES)]
        rows += [f"0\t{n}\t{n}\tthe dog eats {n}\tno rain at all\n" for n in range(EXAMPLES)]
        header = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
        (place / f"msr_paraphrase_{name}.txt").write_text("\ufeff" + header + "".join(rows), encoding="utf-8")
    return folder
