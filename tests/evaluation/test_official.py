"""The official files: what is known of them, and what a data folder is told about its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from official_copy import write_official_copy
from write_official import describe_folder

from dalr.evaluation.official import (
    GROUPS,
    TASKS,
    FileCheck,
    State,
    check_file,
    check_task,
    differences,
    files_of_group,
    files_of_task,
    folded_lines,
    group_of,
    official_files,
)
from dalr.evaluation.sts import load_sts
from dalr.evaluation.tasks import STS_DEV, STS_TASKS, TRANSFER_TASKS


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_official_copy(tmp_path / "data", monkeypatch)


class TestTable:
    """`official.json` as it ships."""

    def test_it_is_what_our_copy_gives(self, shared: Path) -> None:
        shipped = (files("dalr.evaluation") / "official.json").read_text(encoding="utf-8")
        assert describe_folder(shared / "data" / "senteval") == shipped

    def test_our_copy_is_official_for_every_task(self, shared: Path) -> None:
        for task in TASKS:
            assert differences(shared / "data" / "senteval", task) == []

    @pytest.mark.parametrize(
        ("path", "rows"),
        [
            ("SST/binary/sentiment-train", 67349),
            ("SST/binary/sentiment-dev", 872),
            ("SST/binary/sentiment-test", 1821),
            ("TREC/train_5500.label", 5452),
            ("TREC/TREC_10.label", 500),
            ("MRPC/msr_paraphrase_train.txt", 4076 + 1),
            ("MRPC/msr_paraphrase_test.txt", 1725 + 1),
            ("SICK/SICK_train.txt", 4500 + 1),
            ("SICK/SICK_trial.txt", 500 + 1),
            ("SICK/SICK_test_annotated.txt", 4927 + 1),
            ("STS/STSBenchmark/sts-train.csv", 5749),
            ("STS/STSBenchmark/sts-dev.csv", 1500),
            ("STS/STSBenchmark/sts-test.csv", 1379),
            ("SUBJ/subj.subjective", 5000),
            ("MR/rt-polarity.pos", 5331),
        ],
    )
    def test_row_counts_are_those_of_the_field(self, path: str, rows: int) -> None:
        assert official_files()[path].rows == rows

    def test_every_file_is_of_a_group_and_every_sts_task_is_known(self) -> None:
        grouped = [official.path for group in GROUPS for official in files_of_group(group)]
        assert sorted(grouped) == sorted(official_files())
        assert set(TASKS) == {*STS_TASKS, STS_DEV, *TRANSFER_TASKS}
        for path in grouped:
            assert path in [official.path for official in files_of_group(group_of(path))]

    @pytest.mark.parametrize(
        ("task", "count"),
        [
            *[("STS12", 10), ("STS13", 6), ("STS14", 12), ("STS15", 10), ("STS16", 10)],
            *[("STS-B", 1), ("sts-b-dev", 1), ("SICK-R", 1), ("MR", 2), ("CR", 2), ("SUBJ", 2), ("MPQA", 2)],
            *[("SST2", 3), ("TREC", 2), ("MRPC", 2)],
        ],
    )
    def test_a_task_has_the_files_that_it_is_scored_on(self, task: str, count: int) -> None:
        assert len(files_of_task(task)) == count


class TestFolder:
    """A folder beside the table."""

    @pytest.mark.parametrize("task", STS_TASKS)
    def test_each_file_that_a_loader_reads_is_watched(self, data: Path, task: str) -> None:
        watched = {data / official.path for official in files_of_task(task)}
        for place in sorted(path for path in data.rglob("*") if path.is_file()):
            content = place.read_bytes()
            place.unlink()
            try:
                load_sts(data, task)
            except Exception:  # noqa: BLE001 - any failure means that it was read
                assert place in watched
            else:
                assert place not in watched
            place.write_bytes(content)

    def test_a_faithful_copy_has_no_differences(self, data: Path) -> None:
        for task in TASKS:
            assert {check.state for check in check_task(data, task)} == {State.SAME}
            assert differences(data, task) == []

    def test_a_missing_file_is_named_with_the_remedy(self, data: Path) -> None:
        (data / "SUBJ" / "subj.subjective").unlink()
        [problem] = differences(data, "SUBJ")
        assert problem.where == str(data / "SUBJ" / "subj.subjective")
        assert "no such file" in problem.what
        assert "dalr data get transfer" in problem.what

    def test_a_file_cut_short_is_named_with_both_numbers(self, data: Path) -> None:
        place = data / "SUBJ" / "subj.subjective"
        place.write_text("".join(place.read_text().splitlines(keepends=True)[:2]))
        [check] = [check for check in check_task(data, "SUBJ") if not check.good]
        assert (check.state, check.changed) == (State.ROWS, True)
        assert "expected 15 rows as in the official file, found 2" in check.problem().what

    def test_one_other_letter_is_another_content(self, data: Path) -> None:
        place = data / "STS" / "STS14-en-test" / "STS.input.images.txt"
        place.write_text(place.read_text().replace("dog 3", "dog 8", 1))
        [problem] = differences(data, "STS14")
        assert problem.where == str(place)
        assert "6 rows as in the official file, but different content" in problem.what
        assert differences(data, "STS13") == []

    def test_two_lines_exchanged_are_another_content(self, data: Path) -> None:
        place = data / "STS" / "STS14-en-test" / "STS.gs.images.txt"
        first, second, *rest = place.read_text().splitlines(keepends=True)
        place.write_text("".join([second, first, *rest]))
        assert [check.state for check in check_task(data, "STS14") if not check.good] == [State.CONTENT]

    @pytest.mark.parametrize(
        "change",
        [
            lambda content: content.replace(b"\n", b"\r\n"),
            lambda content: content.replace(b"\n", b"\r"),
            lambda content: content.removesuffix(b"\n"),
            lambda content: content.replace(b" ", b"  "),
            lambda content: content.replace(b"\n", b" \n"),
            lambda content: content.decode("latin-1").encode("utf-8"),
            lambda content: b"\xef\xbb\xbf" + content.decode("latin-1").encode("utf-8"),
        ],
        ids=["crlf", "cr", "no end", "spaces", "spaces at ends", "utf-8", "byte-order mark"],
    )
    def test_another_conversion_of_the_same_text_is_good(
        self, data: Path, change: Callable[[bytes], bytes]
    ) -> None:
        place = data / "TREC" / "TREC_10.label"
        changed = change(place.read_bytes())
        assert changed != place.read_bytes()
        place.write_bytes(changed)
        states = {check.place: check.state for check in check_task(data, "TREC")}
        assert states[place] == State.FOLDED
        assert differences(data, "TREC") == []

    def test_all_that_is_wrong_comes_together(self, data: Path) -> None:
        shutil.rmtree(data / "MRPC")
        assert len(differences(data, "MRPC")) == 2
        assert len(differences(data / "nowhere", "STS12")) == 10

    def test_a_folder_in_the_place_of_a_file_is_not_readable(self, data: Path) -> None:
        place = data / "CR" / "custrev.pos"
        place.unlink()
        place.mkdir()
        [check] = [check for check in check_task(data, "CR") if not check.good]
        assert check.state == State.UNREADABLE
        assert not check.changed
        assert "cannot be read" in check.problem().what

    def test_a_good_file_has_no_problem_to_tell(self, data: Path) -> None:
        [official] = files_of_task("STS-B")
        check = check_file(data / official.path, official)
        assert isinstance(check, FileCheck)
        with pytest.raises(ValueError, match="is as expected"):
            check.problem()


def test_folding_keeps_columns_and_missing_scores() -> None:
    assert folded_lines(b"a  b \t c\n\n\nd\n") == ["a b\tc", "", "", "d"]
    assert folded_lines(b"a b\tc\n\n\nd") == ["a b\tc", "", "", "d"]
    assert folded_lines(b"a\tb") != folded_lines(b"a b")
    assert folded_lines(b"4\n\n\n") == ["4", "", ""]
    assert folded_lines(b"caf\xe9\n") == folded_lines("café\r\n".encode()) == ["café"]
