"""Data into a folder: from a folder, from a server that behaves or not, from an archive here or there."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from official_copy import write_official_copy

from dalr.errors import ConfigError, DataError
from dalr.evaluation.obtain import obtain, require_licences, verification
from dalr.evaluation.official import GROUPS, check_files, files_of_group
from dalr.io.console import Console
from file_server import FileServer, serve
from senteval import write_senteval
from tiny import Outcome

Cli = Callable[..., Outcome]
SILENT = Console(quiet=True)
IMAGES = "STS/STS14-en-test/STS.input.images.txt"


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return write_official_copy(tmp_path / "copy", monkeypatch)


@pytest.fixture
def server(copy: Path) -> Iterator[FileServer]:
    """The copy below /base."""
    files = [path for path in copy.rglob("*") if path.is_file()]
    with serve({f"base/{path.relative_to(copy).as_posix()}": path.read_bytes() for path in files}) as served:
        yield served


def _names(group: str) -> list[str]:
    return [official.path for official in files_of_group(group)]


def get(group: str, source: object, out: Path, *, allow_changed: bool = False) -> str:
    return obtain(group, str(source), out, console=SILENT, allow_changed=allow_changed, wait=0.0)


def require_good(folder: Path, group: str) -> None:
    assert [check for check in check_files(folder, files_of_group(group)) if not check.good] == []


class TestFromFolder:
    @pytest.mark.parametrize("group", GROUPS)
    @pytest.mark.parametrize("below", ["", "downstream", "data/downstream"])
    def test_a_copy_becomes_a_data_folder(self, copy: Path, tmp_path: Path, group: str, below: str) -> None:
        source = tmp_path / "source"
        (source / below).parent.mkdir(parents=True, exist_ok=True)
        copy.rename(source / below)
        told = get(group, source, tmp_path / "out")
        count = len(files_of_group(group))
        assert (
            told
            == f"{tmp_path / 'out'}: {count} files of {group}, {count} of them new, all as in the official data"
        )
        require_good(tmp_path / "out", group)
        found = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
        assert len(found) == count

    def test_a_second_call_has_nothing_to_do(self, copy: Path, tmp_path: Path) -> None:
        get("sts", copy, tmp_path / "out")
        assert "0 of them new" in get("sts", tmp_path / "nowhere", tmp_path / "out")

    def test_a_different_file_stops_everything_before_anything_is_written(self, copy: Path, tmp_path: Path) -> None:
        (copy / IMAGES).write_text("a\tb\n")
        (copy / "SICK" / "SICK_test_annotated.txt").unlink()
        with pytest.raises(DataError) as caught:
            get("sts", copy, tmp_path / "out")
        texts = [str(problem) for problem in caught.value.problems]
        assert len(texts) == 2
        assert any("SICK_test_annotated.txt: no such file" in text for text in texts)
        assert any(f"{IMAGES}: expected 6 rows as in the official file, found 1" in text for text in texts)
        assert not (tmp_path / "out").exists()

    def test_a_different_file_is_taken_on_request_and_named(
        self, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (copy / IMAGES).write_text("a\tb\n")
        told = obtain("sts", str(copy), tmp_path / "out", console=Console(), allow_changed=True)
        assert "1 of them not official" in told
        assert f"{IMAGES}: expected 6 rows as in the official file, found 1" in capsys.readouterr().err
        assert (tmp_path / "out" / IMAGES).read_text() == "a\tb\n"

    def test_a_missing_file_is_an_error_even_then(self, copy: Path, tmp_path: Path) -> None:
        (copy / IMAGES).unlink()
        with pytest.raises(DataError, match="no such file"):
            get("sts", copy, tmp_path / "out", allow_changed=True)

    def test_no_such_folder_and_no_such_group(self, copy: Path, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="--from: no such folder"):
            get("sts", tmp_path / "nowhere", tmp_path / "out")
        with pytest.raises(ConfigError, match="expected sts or transfer, found 'all'"):
            get("all", copy, tmp_path / "out")


class TestFromServer:
    @pytest.mark.parametrize("group", GROUPS)
    def test_each_file_is_fetched_once(self, server: FileServer, tmp_path: Path, group: str) -> None:
        get(group, f"{server.address}/base/", tmp_path / "out")
        require_good(tmp_path / "out", group)
        assert [path for path, _ in server.asked] == [f"base/{name}" for name in _names(group)]
        assert not list((tmp_path / "out").rglob("*.part*"))

    def test_a_file_cut_short_is_gone_on_with(self, server: FileServer, tmp_path: Path) -> None:
        server.cuts.append(20)
        get("transfer", f"{server.address}/base", tmp_path / "out")
        require_good(tmp_path / "out", "transfer")
        assert server.ranges_asked[:3] == [None, "bytes=20-", None]

    def test_a_server_without_ranges_is_enough(self, server: FileServer, tmp_path: Path) -> None:
        server.ranges = False
        server.cuts.append(20)
        get("transfer", f"{server.address}/base", tmp_path / "out")
        require_good(tmp_path / "out", "transfer")

    def test_wrong_and_missing_files_are_named_together_and_the_rest_is_kept(
        self, server: FileServer, tmp_path: Path
    ) -> None:
        server.files["base/MR/rt-polarity.pos"] = b"corrupted\n" * 15
        del server.files["base/TREC/TREC_10.label"]
        with pytest.raises(DataError) as caught:
            get("transfer", f"{server.address}/base", tmp_path / "out")
        wrong, missing = (str(problem) for problem in caught.value.problems)
        assert wrong.startswith(
            f"{server.address}/base/MR/rt-polarity.pos: 15 rows as in the official file, but different content"
        )
        assert missing == f"{server.address}/base/TREC/TREC_10.label: the server answers 404 Not Found"
        assert not (tmp_path / "out" / "MR" / "rt-polarity.pos").exists()
        assert not list((tmp_path / "out").rglob("*.part*"))
        present = [check for check in check_files(tmp_path / "out", files_of_group("transfer")) if check.good]
        assert len(present) == len(_names("transfer")) - 2

    def test_the_next_call_fetches_only_what_is_missing(self, server: FileServer, tmp_path: Path) -> None:
        content = server.files.pop("base/TREC/TREC_10.label")
        with pytest.raises(DataError):
            get("transfer", f"{server.address}/base", tmp_path / "out")
        server.files["base/TREC/TREC_10.label"] = content
        server.asked.clear()
        assert "1 of them new" in get("transfer", f"{server.address}/base", tmp_path / "out")
        assert [path for path, _ in server.asked] == ["base/TREC/TREC_10.label"]

    def test_the_same_text_in_other_bytes_is_taken(self, server: FileServer, tmp_path: Path) -> None:
        name = "base/MR/rt-polarity.pos"
        server.files[name] = server.files[name].replace(b"\n", b"\r\n")
        get("transfer", f"{server.address}/base", tmp_path / "out")
        assert (tmp_path / "out" / "MR" / "rt-polarity.pos").read_bytes() == server.files[name]

    def test_a_file_much_longer_than_the_official_one_is_not_fetched_to_its_end(
        self, server: FileServer, tmp_path: Path
    ) -> None:
        server.files["base/MR/rt-polarity.pos"] = bytes(5_000_000)
        with pytest.raises(DataError, match=r"rt-polarity\.pos: expected at most \d+ bytes, found 5000000"):
            get("transfer", f"{server.address}/base", tmp_path / "out")
        assert not list((tmp_path / "out").rglob("*rt-polarity.pos*"))

    def test_a_dead_server_is_asked_for_one_file_only(self, server: FileServer, tmp_path: Path) -> None:
        server.statuses.extend([503] * 100)
        with pytest.raises(DataError, match="the server answers 503"):
            get("transfer", f"{server.address}/base", tmp_path / "out")
        assert len(set(server.asked)) == 1


def packed(folder: Path, prefix: str = "senteval/downstream/") -> bytes:
    """All files of `folder` in a tar archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        tar.add(folder, prefix or "./")
    return made.getvalue()


def without_locks(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir() if path.name != ".lock")


class TestArchive:
    @pytest.mark.parametrize("group", GROUPS)
    def test_it_is_fetched_unpacked_and_checked(self, copy: Path, tmp_path: Path, group: str) -> None:
        archive = packed(copy)
        with serve({"senteval.tar": archive}) as server:
            server.cuts.append(300)
            told = get(group, f"{server.address}/senteval.tar", tmp_path / "out")
            assert server.ranges_asked == [None, "bytes=300-"]
        count = len(files_of_group(group))
        assert told.endswith(f"{count} files of {group}, {count} of them new, all as in the official data")
        require_good(tmp_path / "out", group)
        found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
        others = {official.path for name in GROUPS if name != group for official in files_of_group(name)}
        assert not found & others, "the owners' terms of the other group were not accepted"
        assert not list((tmp_path / "out").glob(".unpacked*"))

    def test_it_is_fetched_once_for_both_groups(self, copy: Path, tmp_path: Path) -> None:
        with serve({"senteval.tar": packed(copy, "")}) as server:
            for group in GROUPS:
                get(group, f"{server.address}/senteval.tar", tmp_path / "out")
                require_good(tmp_path / "out", group)
            assert len(server.asked) == 1

    @pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".tar.bz2"])
    def test_an_archive_on_the_disk_is_a_source_too(self, copy: Path, tmp_path: Path, ending: str) -> None:
        pack = {".tar": bytes, ".tar.bz2": bz2.compress}.get(ending, gzip.compress)
        (tmp_path / f"a{ending}").write_bytes(pack(packed(copy)))
        get("sts", tmp_path / f"a{ending}", tmp_path / "out")
        require_good(tmp_path / "out", "sts")
        assert (tmp_path / f"a{ending}").exists()

    def test_what_differs_is_named_and_nothing_is_put_in_place(self, copy: Path, tmp_path: Path) -> None:
        (copy / IMAGES).write_text("a\tb\n")
        (copy / "SICK" / "SICK_test_annotated.txt").unlink()
        with serve({"senteval.tar": packed(copy)}) as server:
            with pytest.raises(DataError) as caught:
                get("sts", f"{server.address}/senteval.tar", tmp_path / "out")
            archive = tmp_path / "out" / "senteval.tar"
            assert [str(problem) for problem in caught.value.problems if "SICK" in str(problem)] == [
                f"{archive}: SICK/SICK_test_annotated.txt: not in the archive"
            ]
            changed = f"{archive}: {IMAGES}: expected 6 rows as in the official file, found 1"
            assert any(str(problem).startswith(changed) for problem in caught.value.problems)
            assert without_locks(tmp_path / "out") == [], "not even the archive: the next start fetches it anew"
            write_senteval(copy.parent / "again")
            server.files["senteval.tar"] = packed(copy.parent / "again")
            get("sts", f"{server.address}/senteval.tar", tmp_path / "out")
        require_good(tmp_path / "out", "sts")

    def test_changed_files_are_taken_on_request(self, copy: Path, tmp_path: Path) -> None:
        (copy / IMAGES).write_text("a\tb\n")
        (tmp_path / "a.tar").write_bytes(packed(copy))
        assert "1 of them not official" in get("sts", tmp_path / "a.tar", tmp_path / "out", allow_changed=True)

    def test_only_what_is_missing_is_unpacked(self, copy: Path, tmp_path: Path) -> None:
        get("sts", copy, tmp_path / "out")
        (tmp_path / "out" / IMAGES).unlink()
        (tmp_path / "a.tar").write_bytes(packed(copy))
        assert "1 of them new" in get("sts", tmp_path / "a.tar", tmp_path / "out")

    def test_a_forged_archive_leaves_nothing(self, copy: Path, tmp_path: Path) -> None:
        (copy / IMAGES).unlink()
        (copy / IMAGES).symlink_to("/etc/hostname")
        with serve({"senteval.tar": packed(copy)}) as server, pytest.raises(DataError, match="found a link"):
            get("sts", f"{server.address}/senteval.tar", tmp_path / "out")
        assert without_locks(tmp_path / "out") == []

    @pytest.mark.parametrize("name", ["senteval.zip", "senteval.tar.xz"])
    def test_other_archives_are_refused_before_they_are_fetched(
        self, server: FileServer, tmp_path: Path, name: str
    ) -> None:
        with pytest.raises(DataError, match="unpack any other yourself and name the folder"):
            get("sts", f"{server.address}/{name}", tmp_path / "out")
        assert server.asked == []


class TestLicences:
    @pytest.mark.parametrize(
        ("group", "named"), [("sts", ["MSRpar", "MSRvid", "SICK", "CC BY-NC-SA 3.0"]), ("transfer", ["MRPC"])]
    )
    def test_the_terms_are_shown_and_must_be_accepted(
        self, group: str, named: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ConfigError, match="--accept-licences"):
            require_licences(group, accepted=False, ask=None, console=Console())
        shown = capsys.readouterr().err
        assert all(name in shown for name in [*named, "Microsoft Research's terms"])

    def test_a_person_may_be_asked(self) -> None:
        require_licences("sts", accepted=False, ask=lambda: True, console=SILENT)
        with pytest.raises(ConfigError):
            require_licences("sts", accepted=False, ask=lambda: False, console=SILENT)


class TestCommands:
    def test_get_refuses_without_agreement(self, cli: Cli, copy: Path, tmp_path: Path) -> None:
        outcome = cli("data", "get", "sts", "--from", copy, "--out", tmp_path / "out", "-q")
        assert outcome.code == 2
        assert "Microsoft Research" in outcome.err
        assert "--accept-licences" in outcome.err
        assert not (tmp_path / "out").exists()

    def test_get_then_verify(self, cli: Cli, copy: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        outcome = cli("data", "get", "sts", "--from", copy, "--out", out, "--accept-licences")
        assert (outcome.code, outcome.out.strip().endswith("all as in the official data")) == (0, True)
        outcome = cli("data", "verify", out)
        assert outcome.code == 0
        assert "| STS/STS12-en-test |    10 |       10 |" in outcome.out
        (out / IMAGES).write_text("a\tb\n")
        outcome = cli("data", "verify", out)
        assert outcome.code == 3
        assert f"error: {out / IMAGES}: expected 6 rows as in the official file, found 1" in outcome.err

    def test_an_unknown_group_exits_with_2(self, cli: Cli, tmp_path: Path) -> None:
        assert cli("data", "get", "everything", "--out", tmp_path / "out").code == 2

    def test_verify_of_no_folder_exits_with_3(self, cli: Cli, tmp_path: Path) -> None:
        outcome = cli("data", "verify", tmp_path / "nowhere")
        assert outcome.code == 3
        assert "no such folder" in outcome.err


def test_a_folder_with_one_group_is_not_blamed_for_the_other(copy: Path, tmp_path: Path) -> None:
    get("transfer", copy, tmp_path / "out")
    table, bad = verification(tmp_path / "out")
    assert bad == []
    assert "STS" not in table
    assert "STS" in verification(tmp_path / "out", "sts")[0]
    with pytest.raises(ConfigError, match="expected sts or transfer"):
        verification(tmp_path / "out", "others")
    (tmp_path / "empty").mkdir()
    assert len(verification(tmp_path / "empty")[1]) == len(_names("sts")) + len(_names("transfer"))
