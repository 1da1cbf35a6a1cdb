"""What stands on the page of `dalr report`."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from generated import comparison, evaluation, run_folder, three_models
from reading import Reader

from dalr.errors import ConfigError, DataError
from dalr.evaluation.published import load_published
from dalr.evaluation.results import (
    Evaluation,
    Evaluations,
    GeometryResult,
    RetrievalResult,
    StsResult,
    TransferResult,
    write_results,
)
from dalr.evaluation.tasks import STS_TASKS, TRANSFER_TASKS
from dalr.io.console import Console
from dalr.report.write import write_report

QUIET = Console(quiet=True)


def report(folder: Path, *results: Evaluation | Evaluations | Path, **options: str) -> str:
    """The page on these results."""
    paths = []
    for number, each in enumerate(results):
        if isinstance(each, Path):
            paths.append(each)
        else:
            paths.append(folder / f"results-{number}.json")
            write_results(paths[-1], each)
    write_report(paths, out=folder / "report.html", console=QUIET, **options)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def models() -> Evaluations:
    return three_models(pairs=120)


@pytest.fixture(scope="module")
def page(models: Evaluations, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report(tmp_path_factory.mktemp("report"), models)


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


LABELS = ("dalr", "simcse", "untrained")


def test_sts_scores_are_those_of_the_file(models: Evaluations, read: Reader) -> None:
    table = read.table("Semantic textual similarity")
    for label, each in zip(LABELS, models.models, strict=True):
        row = table.row(label)
        for task in STS_TASKS:
            result = each.tasks.get(task)
            assert row[task] == (f"{result.spearman:.2f}" if isinstance(result, StsResult) else "–")
        assert row["Avg"] == ("–" if each.sts_avg is None else f"{each.sts_avg:.2f}")


def test_transfer_scores_are_those_of_the_file_as_acc_and_as_devacc(models: Evaluations, read: Reader) -> None:
    table = read.table("Transfer")
    for label, each in zip(LABELS, models.models, strict=True):
        for task in TRANSFER_TASKS:
            result = each.tasks.get(task)
            if isinstance(result, TransferResult):
                assert table.row(label, 0)[task] == f"{result.acc:.2f}"
                assert table.row(label, 1)[task] == f"{result.devacc:.2f}"
            else:
                assert table.row(label, 0)[task] == table.row(label, 1)[task] == "–"
    assert table.row("dalr", 1)["Avg"] == f"{models.models[0].transfer_devavg:.2f}"


def test_a_model_without_a_group_has_dashes_and_never_a_zero(tmp_path: Path) -> None:
    without = evaluation("m", pairs=60, without=STS_TASKS[:3], transfer=False, extras=False)
    read = Reader(report(tmp_path, without))
    row = read.table("Semantic textual similarity").row("m")
    assert [row[name] for name in (*STS_TASKS[:3], "Avg")] == ["–"] * 4
    assert not any(caption.startswith("Transfer") for caption in read.tables)
    assert not [cell for table in read.tables.values() for row in table.rows for cell in row if cell == "0.00"]
    assert "m has no STS average, since STS12, STS13 and STS14 are missing." in read.words


def test_a_validation_score_alone_stands_alone(tmp_path: Path) -> None:
    each = evaluation("m", pairs=60, without=STS_TASKS, transfer=False, extras=False, failed=())
    read = Reader(report(tmp_path, each))
    result = each.tasks["sts-b-dev"]
    assert isinstance(result, StsResult)
    table = read.table("Semantic textual similarity")
    assert table.row("m") == {"model": "m", "sts-b-dev": f"{result.spearman:.2f}"}
    assert ["Measured (sts-b-dev: split dev, aggregation all)"] in table.rows
    assert f"has a Spearman × 100 of {result.spearman:.2f} on sts-b-dev (dev)" in read.words


def test_scores_that_were_formed_differently_say_so_each(tmp_path: Path) -> None:
    each = evaluation("m", pairs=60, extras=False)
    other = each.model_copy(
        update={
            "model": "n",
            "tasks": {**each.tasks, "STS12": each.tasks["STS12"].model_copy(update={"aggregation": "mean"})},
        }
    )
    words = Reader(report(tmp_path, each, other)).words
    assert "· split test, aggregation mean" in words
    assert "Measured (split test, aggregation all" not in words


def test_intervals_stand_below_the_scores(models: Evaluations, read: Reader) -> None:
    result = models.models[0].tasks["STS12"]
    assert isinstance(result, StsResult)
    assert f"{result.interval[0]:.1f} to {result.interval[1]:.1f}" in read.words


def test_the_best_measured_number_is_bold_and_no_published_one(models: Evaluations, read: Reader) -> None:
    bold = read.table("Semantic textual similarity").bold
    assert {head for head, _ in bold} <= set(LABELS)
    for task in STS_TASKS:
        having = {
            label: result.spearman
            for label, each in zip(LABELS, models.models, strict=True)
            if isinstance(result := each.tasks.get(task), StsResult)
        }
        assert [head for head, column in bold if column == task] == [max(having, key=lambda label: having[label])]


def test_published_rows_stand_below_with_their_sources(read: Reader) -> None:
    table = read.table("Semantic textual similarity")
    heads = [row[0] for row in table.rows]
    assert heads.index("Published, as printed") > heads.index("untrained")
    for row in load_published().of("sts"):
        assert row.method in heads
    sources = read.table("Sources of the published rows")
    assert len(sources.rows) == 1 + len(load_published().rows)
    for source in load_published().sources:
        assert source in read.words
    assert load_published().note in read.words


def test_it_is_said_that_published_transfer_columns_are_of_unclear_kind(read: Reader) -> None:
    assert "It is not always clear which of the two a published column is" in read.words
    assert ["Published, as printed; acc or devacc unclear"] in read.table("Transfer").rows


def test_every_number_says_split_aggregation_and_classifier(models: Evaluations, read: Reader) -> None:
    sts, transfer = read.table("Every STS number"), read.table("Every transfer number")
    assert {row[1] for row in sts.rows[1:]} == {*STS_TASKS, "sts-b-dev"}
    for row in sts.rows[1:]:
        assert row[2:4] == ["dev" if row[1] == "sts-b-dev" else "test", "all"]
    for row in transfer.rows[1:]:
        assert row[2:4] == ["10-fold cross-validation", "senteval"]


def test_retrieval_and_geometry_are_those_of_the_file(models: Evaluations, read: Reader) -> None:
    result, geometry = models.models[0].tasks["retrieval"], models.models[0].tasks["geometry STS-B"]
    assert isinstance(result, RetrievalResult)
    assert isinstance(geometry, GeometryResult)
    row = read.table("Image–text retrieval").row("dalr")
    assert row["t→i R@1"] == f"{result.text_to_image.r1:.2f}"
    assert row["i→t R@10"] == f"{result.image_to_text.r10:.2f}"
    assert read.table("Geometry").row("dalr")["alignment"] == f"{geometry.alignment:.3f}"
    assert read.table("Geometry").row("dalr")["uniformity"] == f"−{abs(geometry.uniformity):.3f}"


def test_comparisons_have_difference_interval_and_p(models: Evaluations, read: Reader) -> None:
    table = read.table("Differences between models")
    for each in models.comparisons:
        row = table.row(each.task)
        assert float(row["difference"].replace("−", "-")) == pytest.approx(each.difference, abs=0.005)
        low, high = (float(bound.replace("−", "-")) for bound in row["95 % interval"].split(" to "))
        assert (low, high) == pytest.approx(each.interval, abs=0.005)
        assert row["p"] == ("< 0.001" if each.p_value < 0.001 else f"{each.p_value:.3f}")


def test_models_without_paired_tests_are_said_to_have_none(tmp_path: Path) -> None:
    both = [evaluation(name, seed=seed, pairs=60, extras=False) for seed, name in enumerate("ab")]
    assert "hold no paired tests" in Reader(report(tmp_path, *both)).words


def test_failed_tasks_stand_with_their_reason(read: Reader) -> None:
    table = read.table("Tasks without a score")
    assert ["untrained", "SICK-R", "SICK-R.txt: no such file"] in table.rows
    assert "Failed for untrained: SICK-R (SICK-R.txt: no such file) and CR" in read.words.replace(" :", ":")


def test_the_summary_says_who_is_best_by_how_much_and_among_what(models: Evaluations, read: Reader) -> None:
    first, second = models.models[0].sts_avg, models.models[1].sts_avg
    assert first is not None
    assert second is not None
    assert f"has the highest STS average (Spearman × 100), {first:.2f}" in read.words.replace(" ,", ",")
    assert f"simcse ({second:.2f}, {first - second:.2f} behind)" in read.words
    below = sum(row.scores.get("Avg", 1000.0) < first for row in load_published().of("sts"))
    said = {0: "none is lower", 21: "all are lower"}.get(below, f"{below} are lower")
    assert said in read.words


def test_the_summary_follows_the_numbers(tmp_path: Path) -> None:
    good, bad = evaluation("good", seed=1, noise=0.5, pairs=60), evaluation("bad", seed=2, noise=1.5, pairs=60)
    for number, order in enumerate(([good, bad], [bad, good])):
        folder = tmp_path / str(number)
        folder.mkdir()
        words = Reader(report(folder, *order)).words
        assert "good has the highest STS average" in words


def test_changed_data_is_said_in_the_summary(tmp_path: Path) -> None:
    each = evaluation("m", pairs=60)
    changed = each.model_copy(update={"settings": each.settings.model_copy(update={"data_changed": ("SUBJ",)})})
    assert "Not the official data: m was scored on changed files (SUBJ)" in Reader(report(tmp_path, changed)).words


def test_every_kind_of_picture_is_there(read: Reader) -> None:
    labels = read.attributes("aria-label")
    for beginning in (
        "Bars. STS",
        "Bars. Transfer",
        "Ranking.",
        "Differences,",
        "Alignment and",
        "Bars. From text",
    ):
        assert any(label.startswith(beginning) for label in labels), beginning
    for task in STS_TASKS:
        scatters = [label for label in labels if f"pairs of {task}, " in label]
        assert len(scatters) == (2 if task == "SICK-R" else 3)
    assert sum("in the plane, by PCA" in label for label in labels) == 3


def test_pictures_are_described_by_their_numbers(models: Evaluations, read: Reader) -> None:
    (bars,) = [label for label in read.attributes("aria-label") if label.startswith("Bars. STS")]
    result = models.models[1].tasks["STS14"]
    assert isinstance(result, StsResult)
    assert f"STS14 {result.spearman:.1f}" in bars.split("simcse:")[1]


def test_worst_pairs_stand_with_gold_cosine_and_error(models: Evaluations, read: Reader) -> None:
    table = read.table("Worst-predicted pairs of dalr")
    worst = models.models[0].details.sts["STS12"].worst[0]
    error = f"{worst.rank_error:+.2f}".replace("-", "−")
    expected = [worst.first, f"{worst.gold:.1f}", f"{worst.cosine:.2f}".replace("-", "−"), error]
    assert [*expected, worst.subset] in table.rows
    assert f"{worst.first} {worst.second} {worst.gold:.1f}" in read.words


def test_a_pair_that_occurs_several_times_is_shown_once(tmp_path: Path) -> None:
    read = Reader(report(tmp_path, evaluation("m", pairs=60, sentences=("one", "two"))))
    heads = [row[0] for row in read.table("Worst-predicted pairs of m").rows]
    start = heads.index("STS12")
    assert sorted(heads[start + 1 : heads.index("STS13")]) == ["one", "two"]


def test_a_model_that_was_cut_says_so_beside_its_name(tmp_path: Path) -> None:
    each = evaluation("m", pairs=60, extras=False)
    cut = each.model_copy(update={"settings": each.settings.model_copy(update={"num_layers": 3, "pooling": "cls"})})
    assert "m first 3 layers, cls pooling" in Reader(report(tmp_path, cut)).words


def test_overlap_shows_the_score_with_and_without(models: Evaluations, read: Reader) -> None:
    result = models.models[0].tasks["STS-B"]
    assert isinstance(result, StsResult)
    assert result.without_overlap is not None
    row = read.table("Spearman × 100 with and without").row("dalr")
    assert [row["all pairs"], row["without"]] == [
        f"{result.spearman:.2f}",
        f"{result.without_overlap.spearman:.2f}",
    ]
    assert [row["exact"], row["near"]] == ["5", "7"]


def test_the_page_asks_for_nothing(page: str, read: Reader) -> None:
    for name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
        for value in read.attributes(name):
            assert value.startswith(("#", "data:image/png;base64,")), f"{name}={value[:60]}"
    assert not re.search(r"https?:", page)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page
    assert read.count("link") == 0
    policies = [a for tag, a in read.elements if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert [str(policy["content"]).split(";")[0] for policy in policies] == ["default-src 'none'"]


def test_ids_are_unique_and_references_lead_somewhere(page: str, read: Reader) -> None:
    ids = read.attributes("id")
    assert len(ids) == len(set(ids))
    targets = [value[1:] for value in read.attributes("href") if value.startswith("#")]
    targets += read.attributes("aria-labelledby") + re.findall(r"url\(#([^)]*)\)", page)
    assert set(targets) <= set(ids)


def test_colours_are_variables_that_exist_in_light_and_dark(page: str) -> None:
    assert "#fe01" not in page
    light, dark = re.search(r":root \{ (.*?) \}", page), re.search(r"dark\) \{ :root \{ (.*?) \}", page)
    assert light is not None
    assert dark is not None
    used = set(re.findall(r"var\(--([\w-]+)\)", page))
    for block in (light[1], dark[1]):
        assert used <= set(re.findall(r"--([\w-]+):", block))


def test_headings_go_down_one_level_at_a_time_and_every_picture_has_a_description(read: Reader) -> None:
    levels = [int(tag[1]) for tag, _ in read.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    pictures = [attributes for tag, attributes in read.elements if tag == "svg" and attributes.get("role") == "img"]
    assert pictures
    assert all(attributes["aria-label"] for attributes in pictures)
    assert all(tag != "svg" or a.get("role") == "img" or a.get("aria-hidden") for tag, a in read.elements)


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a & b $x_1$ </svg></style> 漢字",
    "' or 1=1 --",
)


def test_hostile_names_and_sentences_are_text(tmp_path: Path) -> None:
    first, second = (
        evaluation(f"{HOSTILE[0]}{name}", seed=seed, pairs=60, sentences=HOSTILE, without=("CR",))
        for seed, name in enumerate("ab")
    )
    one_source = [
        each.model_copy(update={"tasks": {k: v for k, v in each.tasks.items() if k != "geometry SICK-R"}})
        for each in (first, second)
    ]
    hostile = Evaluations(models=tuple(one_source), comparisons=comparison(first, second))
    run = run_folder(tmp_path / "run", name=HOSTILE[1])
    page = report(tmp_path, hostile, run, title=HOSTILE[2])
    read = Reader(page)
    assert (read.count("script"), read.count("img"), read.count("style"), read.count("title")) == (1, 0, 1, 1)
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    for text in HOSTILE:
        assert text in read.words
    assert "script>a" in "".join(read.attributes("aria-label"))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    each = evaluation("m", pairs=60)
    assert report(tmp_path, each) == report(tmp_path, each)


def test_three_models_with_everything_stay_below_three_megabytes(tmp_path: Path) -> None:
    page = report(tmp_path, three_models(pairs=2500))
    assert len(page.encode()) < 3e6


def test_a_run_without_an_evaluation_shows_its_training(tmp_path: Path) -> None:
    read = Reader(report(tmp_path, run_folder(tmp_path / "mine", name="toy")))
    for name in ("dev Spearman (validation)", "loss", "infonce (term)", "grounding (term)", "learning rate"):
        assert any(label.startswith(f"Curve of {name}: ") for label in read.attributes("aria-label")), name
    assert "Training raised mine on dev Spearman from 50.00 to" in read.words
    assert read.table("Models and settings").row("mine")["evaluated"] == "not evaluated"
    assert not any(caption.startswith("Semantic") for caption in read.tables)


def test_a_run_brings_its_evaluation(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "mine")
    each = evaluation("anything/model", pairs=60)
    write_results(run / "evaluation.json", each)
    read = Reader(report(tmp_path, run))
    assert read.table("Semantic textual similarity").row("mine")["Avg"] == f"{each.sts_avg:.2f}"
    assert read.table("Trainings").row("mine")["status"] == "finished"


def test_a_stopped_run_is_said_to_be_unfinished(tmp_path: Path) -> None:
    words = Reader(report(tmp_path, run_folder(tmp_path / "mine", status="stopped"))).words
    assert "The training of mine is not finished (status: stopped)." in words


def test_values_that_are_not_finite_are_left_out_and_counted(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "mine")
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 210, "loss": NaN, "terms": {"infonce": NaN}}\n')
    labels = Reader(report(tmp_path, run)).attributes("aria-label")
    assert any(label.startswith("Curve of loss · 1 values not finite, left out: ") for label in labels)


def test_recipes_show_first_where_runs_differ(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / f"run-{seed}", seed=seed) for seed in range(2)]
    table = Reader(report(tmp_path, *runs)).table("Resolved recipes")
    heads = [row[0] for row in table.rows]
    assert heads.index("seed") < heads.index("The same in all") < heads.index("training.learning_rate")
    assert table.row("seed") == {"key": "seed", "run-0": "0", "run-1": "1"}


def test_everything_that_cannot_be_read_is_reported_at_once_and_nothing_written(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    run = run_folder(tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"step": 1}\n{"step": "x"}\n{"st')
    paths = [tmp_path / name for name in ("broken.json", "other.json", "folder", "missing.json", "run")]
    with pytest.raises(DataError) as caught:
        write_report(paths, out=tmp_path / "report.html", console=QUIET)
    message = str(caught.value)
    for part in (
        "broken.json: expected a run folder, or a file that `dalr evaluate --json` wrote; not JSON",
        "other.json: expected a file",
        "folder: expected a run folder",
        "missing.json: no such run or result file",
        "metrics.jsonl:2: step",
        "metrics.jsonl:3: not JSON",
    ):
        assert part in message, part
    assert not (tmp_path / "report.html").exists()


def test_a_path_named_twice_is_refused(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run")
    with pytest.raises(ConfigError, match="named more than once"):
        write_report([run, tmp_path / "." / "run"], out=tmp_path / "report.html", console=QUIET)
