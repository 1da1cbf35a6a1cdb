"""A study's tables against figures worked out by hand, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pretend import Bench, evaluation, make_bench, study_result

from dalr.evaluation.published import load_published
from dalr.report.page import Figure, Folded, TableBlock, render
from dalr.report.tables import DASH
from dalr.study.page import study_page
from dalr.study.result import (
    Difference,
    FailedRun,
    ItemTest,
    MethodResult,
    Origin,
    SeedResult,
    StudyResult,
    TrialResult,
)
from dalr.study.scores import scores_of
from dalr.study.statistics import paired_difference, summary
from dalr.study.tables import (
    difference_table,
    failure_table,
    overlap_table,
    photo_table,
    sts_table,
    study_tables,
    trial_table,
)
from tiny import Toys

SCORES = {
    "simcse": {0: (65.0, 72.0), 1: (66.0, 73.0), 2: (64.0, 71.0)},
    "dalr": {0: (70.0, 80.0), 1: (72.0, 81.0), 2: (71.0, 82.5)},
}


def method(name: str, *, without: tuple[int, ...] = ()) -> MethodResult:
    seeds = tuple(
        SeedResult(
            run=f"runs/{name}/seed-{seed}",
            seed=seed,
            scores={"STS12": average - 1, "STS avg": average, "dev": dev, "STS14/images": average + 3},
            steps=10,
            best_step=5,
            seconds=1.0,
            trained_parameters=3,
        )
        for seed, (average, dev) in SCORES[name].items()
        if seed not in without
    )
    trials = tuple(
        TrialResult(run=f"{name}/trial-{n:02d}", setting={"lr": 10.0**-n}, validation=70.0 + n, chosen=n == 1)
        for n in (0, 1)
    )
    names = seeds[0].scores if seeds else {}
    return MethodResult(
        recipe=name,
        setting={"lr": 0.1},
        trials=trials,
        seeds=seeds,
        summary={each: summary([seed.scores[each] for seed in seeds]) for each in names},
    )


def result(**fields: object) -> StudyResult:
    difference = paired_difference(
        *({seed: pair[0] for seed, pair in SCORES[name].items()} for name in ("dalr", "simcse"))
    )
    assert difference is not None
    items = ItemTest(difference=6.01, interval=(5.2, 6.9), p_value=0.002)
    made = study_result(
        baseline="simcse",
        methods={name: method(name) for name in SCORES},
        differences=(Difference(a="dalr", b="simcse", score="STS avg", seeds=difference, items=items),),
        origins=(Origin(versions={"torch": "2"}, machine={"cores": 2}, git_commit="a" * 40, runs=6),),
    )
    return made.model_copy(update=fields)


def texts(row: object) -> dict[str, str]:
    table = sts_table(result())
    assert table is not None
    return dict(zip([column.name for column in table.columns], [cell.text for cell in row.cells], strict=True))  # type: ignore[attr-defined]


def test_a_cell_is_mean_and_sample_deviation() -> None:
    """70, 72, 71: mean 71, s = 1. 80, 81, 82.5: mean 81.1667, s² = (1.3611 + 0.0278 + 1.7778) / 2 = 1.5833."""
    table = sts_table(result())
    assert table is not None
    simcse, dalr = table.groups[0].rows
    assert texts(dalr) == dict.fromkeys(texts(dalr), DASH) | {
        "STS12": "70.00 ± 1.00",
        "Avg": "71.00 ± 1.00",
        "dev": "81.17 ± 1.26",
    }
    assert texts(simcse)["Avg"] == "65.00 ± 1.00"
    best = [cell.text for cell in dalr.cells if cell.best]
    assert best == ["70.00 ± 1.00", "71.00 ± 1.00", "81.17 ± 1.26"]
    assert not any(cell.best for cell in simcse.cells)
    assert table.groups[0].title == "Measured: mean ± standard deviation over 3 seeds"


def test_published_rows_stand_below_as_they_were_printed() -> None:
    table = sts_table(result())
    assert table is not None
    rows = table.groups[1].rows
    assert [row.head for row in rows] == [row.method for row in load_published().of("sts")]
    assert texts(rows[0])["Avg"] == "76.25"
    assert texts(rows[0])["dev"] == DASH


def test_a_difference_has_both_intervals() -> None:
    """5, 6, 7: mean 6, s = 1, reach 4.302653 / √3 = 2.484138."""
    table = difference_table(result())
    assert table is not None
    [group] = table.groups
    assert group.title == "dalr minus simcse"
    [row] = group.rows
    assert [cell.text for cell in row.cells] == ["+6.00", "1.00", "+3.52 to +8.48", "+5.20 to +6.90", "0.002", "3"]


def test_trials_show_their_setting_and_which_was_chosen() -> None:
    table = trial_table(result())
    assert table is not None
    rows = table.groups[1].rows
    assert [[cell.text for cell in row.cells] for row in rows] == [
        ["lr=1", "70.00", DASH],
        ["lr=0.1", "71.00", "chosen"],
    ]


def test_photo_captions_have_a_table_of_their_own() -> None:
    table = photo_table(result())
    assert table is not None
    assert [column.name for column in table.columns] == ["STS14/images"]
    assert table.rows[1].cells[0].text == "74.00 ± 1.00"


def test_scores_without_overlap_have_a_table_of_their_own() -> None:
    assert overlap_table(result()) is None
    found = method("dalr")
    clean = {f"{name} without overlap": found.summary["STS12"] for name in ("STS12", "STS14/images")}
    cleaned = result(methods={"dalr": found.model_copy(update={"summary": {**found.summary, **clean}})})
    table = overlap_table(cleaned)
    assert table is not None
    assert [column.name for column in table.columns] == ["STS12"]
    photos = photo_table(cleaned)
    assert photos is not None
    assert [column.name for column in photos.columns] == ["STS14/images", "STS14/images w/o overlap"]


def test_what_failed_is_said_and_leaves_a_gap() -> None:
    failed = FailedRun(run="dalr/seed-2", phase="train", reason="not finite", exit_code=5)
    found = result(
        failures=(failed,),
        methods={"simcse": method("simcse", without=(0, 1, 2)), "dalr": method("dalr", without=(2,))},
    )
    table = sts_table(found)
    assert table is not None
    simcse, dalr = table.groups[0].rows
    assert {cell.text for cell in simcse.cells} == {DASH}
    assert dalr.about == "2 of 3 seeds"
    failures = failure_table(found)
    assert failures is not None
    assert failures.rows[0].cells[0].text == "not finite"


def test_the_reason_for_unequal_trials_is_printed() -> None:
    uneven = method("dalr").model_copy(update={"trials": ()})
    found = result(methods={"simcse": method("simcse"), "dalr": uneven}, unequal_trials="DALR is as published")
    table = sts_table(found)
    assert table is not None
    assert any("simcse 2, dalr 0" in note and "DALR is as published" in note for note in table.notes)


def test_one_seed_is_a_plain_number() -> None:
    single = {name: method(name, without=(1, 2)) for name in SCORES}
    table = sts_table(result(seeds=(0,), methods=single))
    assert table is not None
    assert table.groups[0].title == "Measured, one seed"
    assert table.rows[1].cells[0].text == "69.00"


def test_the_page_shows_every_table_and_a_dot_for_each_seed() -> None:
    found = result()
    page = render(study_page(found))
    for table in study_tables(found):
        assert table.caption.split(" (")[0] in page
    assert "dalr minus simcse" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert render(study_page(found)) == page


def test_every_task_that_was_asked_for_is_in_the_page() -> None:
    one = method("dalr")
    scores = {
        name: next(iter(one.summary.values())) for name in ("captions MAP", "my pairs", "MTEB task", "STS-B dev")
    }
    more = one.model_copy(update={"summary": {**one.summary, **scores}})
    methods = {"simcse": method("simcse"), "dalr": more}
    page = render(study_page(result(methods=methods, graded=("my pairs",))))
    for said in ("Captions of one image among all test captions", "Graded pairs, my pairs", "MTEB task"):
        assert said in page


def test_the_page_begins_with_pictures_and_folds_what_papers_print() -> None:
    page = study_page(result())
    glance, scores = page.sections[:2]
    assert all(isinstance(block, Figure) for block in glance.blocks)
    measured, folded = scores.blocks[:2]
    assert isinstance(measured, TableBlock)
    assert len(measured.table.groups) == 1
    assert isinstance(folded, Folded)
    assert folded.summary == f"{len(load_published().of('sts'))} published rows"


def test_scores_by_name() -> None:
    found = scores_of(evaluation("m", 3.0), 80.0)
    assert found["dev"] == 80.0
    assert found["STS15/images"] == found["STS15"]
    assert found["STS avg"] == pytest.approx(
        sum(found[f"STS{n}"] for n in range(12, 17)) / 7 + (found["STS-B"] + found["SICK-R"]) / 7
    )
    assert "transfer avg" not in found
    assert scores_of(None, None) == {}


def test_the_files_of_a_study(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench: Bench = make_bench(toys, tmp_path, monkeypatch)
    (tmp_path / "senteval").mkdir()
    bench.tree["evaluate"] = {"data": str(tmp_path / "senteval")}
    found = bench.run()
    written = json.loads((bench.out / "study.json").read_text())
    assert StudyResult.model_validate_json(json.dumps(written)) == found
    average = written["methods"]["grounded"]["summary"]["STS avg"]
    seeds = [each["scores"]["STS avg"] for each in written["methods"]["grounded"]["seeds"]]
    assert average["mean"] == pytest.approx(sum(seeds) / 2)
    assert average["std"] == pytest.approx(abs(seeds[0] - seeds[1]) / 2**0.5)
    [sts] = [each for each in written["differences"] if each["score"] == "STS avg"]
    assert sts["seeds"]["mean"] > 0
    assert sts["items"]["interval"][0] > 0
    assert "± " in (bench.out / "study.md").read_text()
    assert r"$\pm$" in (bench.out / "study.tex").read_text()
    lines = map(json.loads, (bench.out / "results/toy.jsonl").read_text().splitlines())
    kept = {line["run"]: line["evaluation"] for line in lines}
    small = kept["runs/grounded/seed-1"]
    assert kept["runs/grounded/trial-00"] is None, "not chosen, so not scored"
    whole = json.loads((bench.out / "runs/grounded/seed-1/evaluation.json").read_text())
    assert small["tasks"] == whole["tasks"]
    assert small["details"]["sts"] == {}
    assert whole["details"]["sts"]["STS12"]["cosine"]
