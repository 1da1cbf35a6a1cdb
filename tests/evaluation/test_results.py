"""Result files: what is written is read back, and what is not one is said to be none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dalr.errors import DataError
from dalr.evaluation.results import (
    Comparison,
    Correlation,
    Details,
    EmbeddingMap,
    Evaluation,
    Evaluations,
    Failed,
    GeometryResult,
    MtebResult,
    PairDetails,
    Recall,
    RetrievalResult,
    StsResult,
    SubsetCorrelation,
    TransferResult,
    WithoutOverlap,
    WorstPair,
    read_results,
    write_results,
)

WORST = WorstPair(first='a "b"', second="\u2028é", gold=5, cosine=0.1, subset="one", rank_error=-0.5)
RECALL = Recall(r1=10, r5=50, r10=75, median_rank=5)


def everything(name: str = "model") -> Evaluation:
    """A result of every kind."""
    both = Correlation(spearman=1 / 3, pearson=50)
    return Evaluation(
        model=name,
        model_sha256="0" * 64,
        created="2026-01-01T00:00:00+00:00",
        dalr="0.1.0",
        tasks={
            "STS12": StsResult(
                split="test",
                aggregation="all",
                pairs=2,
                spearman=1 / 3,
                pearson=50,
                interval=(0, 1),
                mean=both,
                weighted_mean=both,
                subsets={"one": SubsetCorrelation(spearman=1, pearson=2, pairs=2)},
                without_overlap=WithoutOverlap(
                    spearman=1, pearson=2, pairs=1, left_out_exact=1, left_out_near=0, interval=(0, 2)
                ),
            ),
            "MR": TransferResult(
                split="test", classifier="senteval", acc=80.5, devacc=81, examples=3, interval=(79, 82)
            ),
            "retrieval": RetrievalResult(
                space="grounding", images=2, captions=4, text_to_image=RECALL, image_to_text=RECALL
            ),
            "geometry": GeometryResult(
                source="STS-B test",
                alignment=None,
                uniformity=-2.5,
                mean_cosine=0.1,
                top_component=0.2,
                effective_rank=12,
                hubness=1,
                largest_hub=30,
                antihubs=0.1,
                sentences=99,
            ),
            "Banking77": MtebResult(main_score=70, metric="accuracy", mteb_version="2"),
        },
        sts_avg=None,
        transfer_avg=None,
        transfer_devavg=None,
        failed=(Failed(task="SICK-R", reason="no such file"),),
        details=Details(
            sts={"STS12": PairDetails(gold=(1, 2), cosine=(0.5, 0.25), subset_sizes={"one": 2}, worst=(WORST,))},
            transfer={"MR": "101"},
            map=EmbeddingMap(method="pca", x=(1, 2), y=(3, 4), task=("STS12", "STS12")),
        ),
    )


def test_one_model_is_read_back(tmp_path: Path) -> None:
    write_results(tmp_path / "a.json", everything())
    assert read_results(tmp_path / "a.json") == ([everything()], [])


def test_several_models_are_read_back_with_their_comparisons(tmp_path: Path) -> None:
    found = Comparison(task="MR", metric="acc", a="one", b="two", difference=-1, interval=(-2, 0), p_value=0.04)
    both = Evaluations(models=(everything("one"), everything("two")), comparisons=(found,))
    write_results(tmp_path / "a.json", both)
    assert read_results(tmp_path / "a.json") == ([everything("one"), everything("two")], [found])


def test_numbers_are_not_rounded_and_long_lists_stand_on_one_line(tmp_path: Path) -> None:
    write_results(tmp_path / "a.json", everything())
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text)["tasks"]["STS12"]["spearman"] == 1 / 3
    assert json.loads(text)["tasks"]["retrieval"]["text_to_image"]["R@1"] == 10
    assert '"cosine": [0.5, 0.25]' in text


def test_a_key_of_a_later_version_does_not_matter(tmp_path: Path) -> None:
    write_results(tmp_path / "a.json", everything())
    tree = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    tree["colour"] = tree["tasks"]["MR"]["colour"] = "red"
    (tmp_path / "a.json").write_text(json.dumps(tree))
    assert read_results(tmp_path / "a.json")[0] == [everything()]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "expected a file that `dalr evaluate --json` wrote (format dalr-evaluation), found format 'none'"),
        ('{"format": "other"}', "found format 'other'"),
        ('{"format": "dalr-evaluation", "version": 9}', "version 9, but this dalr reads up to 1; update dalr"),
        ('{"format": "dalr-evaluation", "version": 1}', "model: Field required"),
        ('{"format": "dalr-evaluations", "version": 1, "models": [{}]}', "models.0.model: Field required"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError) as caught:
        read_results(tmp_path / "a.json")
    assert words in str(caught.value)
    assert str(tmp_path / "a.json") in str(caught.value)


def test_a_number_that_is_not_one_is_refused(tmp_path: Path) -> None:
    write_results(tmp_path / "a.json", everything())
    text = (tmp_path / "a.json").read_text(encoding="utf-8").replace('"acc": 80.5', '"acc": NaN')
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"tasks\.MR.*acc: Input should be a finite number"):
        read_results(tmp_path / "a.json")


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_results(tmp_path / "a.json")


@pytest.mark.parametrize("number", ["1e400", "-Infinity", "9" * 400, "100.5", "-0.5"])
def test_an_accuracy_that_cannot_be_one_is_refused(tmp_path: Path, number: str) -> None:
    write_results(tmp_path / "a.json", everything())
    text = (tmp_path / "a.json").read_text(encoding="utf-8").replace('"acc": 80.5', f'"acc": {number}')
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=r"tasks\.MR.*acc: Input should be"):
        read_results(tmp_path / "a.json")
