"""SentEval's data into a folder that `--data` takes, every file compared with the official one.

From a folder the needed files are copied, from an address they are fetched one by one; of an archive, which the
public source is, they are unpacked into a hidden folder and checked there. What is already in place and official is
left alone, so a second call continues the first. A file that differs is not put in place; all that is wrong comes
in one error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from dalr.errors import ConfigError, DataError, Problem
from dalr.evaluation.official import (
    GROUPS,
    FileCheck,
    OfficialFile,
    State,
    check_file,
    check_files,
    files_of_group,
)
from dalr.evaluation.table import markdown
from dalr.io.atomic import write_bytes
from dalr.io.console import Bar, Console
from dalr.io.download import UnreachableError, download
from dalr.io.lock import scratch_folder
from dalr.io.paths import is_dir, is_file, regular, resolve
from dalr.io.unpacking import ARCHIVES, MOST_BYTES, require_archive, unpack

PUBLIC_ADDRESS = "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main/senteval.tar"
"""Where SimCSE's download script gets it. Taken from that script; the address itself could not be tried when this
was written, and no checksum of the archive is published: its files are checked once they are unpacked."""
_OTHER_ARCHIVES = (".tar.xz", ".tar.zst", ".zip", ".7z", ".rar")

_KIB = 1024

LICENCES: Mapping[str, tuple[str, ...]] = {
    "sts": (
        "MSRpar (STS12, STS-B): Microsoft Research Paraphrase Corpus; users agree to Microsoft Research's terms",
        "MSRvid (STS12, STS-B): Microsoft Research Video Description Corpus; the same",
        "SICK-R: Creative Commons Attribution-NonCommercial-ShareAlike 3.0 (CC BY-NC-SA 3.0)",
        "STS16 plagiarism: Creative Commons BY-NC-SA 2.0 UK",
        "STS15 answers-forums, STS16 answer-answer and question-question: Stack Exchange, CC BY-SA 3.0, with its "
        "rules of attribution",
        "headlines (STS13 to STS16): European Media Monitor, to be acknowledged",
        "STS-B scores: CC BY-SA 4.0; each of its texts keeps the licence of its source",
    ),
    "transfer": (
        "MRPC: Microsoft Research Paraphrase Corpus; users agree to Microsoft Research's terms",
        "MR, SUBJ, CR, MPQA, SST2, TREC: published for research, no licence lies beside the files; see the pages "
        "of their authors",
    ),
}
"""What the readme and licence files of the data sets ask of their users."""


def require_group(group: str, where: str = "dalr data get") -> None:
    """Raises ConfigError unless `group` is one of `GROUPS`."""
    if group not in GROUPS:
        raise ConfigError(Problem(where=where, what=f"expected {' or '.join(GROUPS)}, found {group!r:.60}"))


def require_licences(group: str, *, accepted: bool, ask: Callable[[], bool] | None, console: Console) -> None:
    """Show what the owners of the data ask for, and continue only if the user agrees.

    Args:
        ask: puts the question to a person, where there is one.

    Raises:
        ConfigError: not agreed.
    """
    console.say(f"The data of `{group}` belongs to others, who set these terms:")
    for line in LICENCES[group]:
        console.say(f"  - {line}")
    if accepted or (ask is not None and ask()):
        return
    what = "the terms above were not accepted; --accept-licences states that you have read and accept them"
    raise ConfigError(Problem(where="dalr data get", what=what))


def obtain(
    group: str,
    source: str | None,
    out: Path,
    *,
    console: Console,
    allow_changed: bool = False,
    wait: float = 1.0,
) -> str:
    """Bring the files of one of `GROUPS` into `out`; what to tell the user afterwards.

    Args:
        source: a folder or an archive, or the address of one; None is the public archive.
        allow_changed: put files in place that are not the official ones, and name them.
        wait: seconds before a second attempt at an address.

    Raises:
        ConfigError: no such group.
        DataError: files missing or different, or an address that does not answer.
        StorageError: the disk refuses.
    """
    require_group(group)
    expected = files_of_group(group)
    wanted = [check.official for check in check_files(out, expected) if not check.good]
    source = PUBLIC_ADDRESS if source is None else source
    is_archive = source.lower().endswith((*ARCHIVES, *_OTHER_ARCHIVES))
    if not wanted:
        pass
    elif is_archive and "://" in source:
        archive = _fetch_archive(source, out, console, wait)
        try:
            _unpack(archive, out, wanted, allow_changed=allow_changed)
        except DataError:
            archive.unlink(missing_ok=True)  # the next start fetches it anew
            raise
        console.say(f"{archive} is kept for the other files in it; delete it if you need none of them")
    elif is_archive and is_file(Path(source)):
        _unpack(Path(source), out, wanted, allow_changed=allow_changed)
    elif "://" not in source:
        _copy(_layout_below(Path(source), wanted), out, wanted, allow_changed=allow_changed)
    else:
        _fetch_files(source.rstrip("/"), out, wanted, console, allow_changed=allow_changed, wait=wait)
    changed = [check for check in check_files(out, expected) if not check.good]
    for check in changed:
        console.say(f"warning: {check.problem()}")
    state = f"{len(changed)} of them not official" if changed else "all as in the official data"
    return f"{out}: {len(expected)} files of {group}, {len(wanted)} of them new, {state}"


def verification(data: Path, group: str | None = None) -> tuple[str, list[FileCheck]]:
    """A Markdown table of what a data folder holds, and the files that are not as they should be.

    Args:
        group: the one of `GROUPS` that is asked for; None is every group that the folder has a file of, or all
            where it has none.

    Raises:
        ConfigError: no such group.
    """
    if group is not None:
        require_group(group, where="--group")
    checks = {name: check_files(data, files_of_group(name)) for name in ([group] if group else GROUPS)}
    begun = {name: each for name, each in checks.items() if any(check.state != State.MISSING for check in each)}
    checks = begun or checks
    rows = []
    for each in checks.values():
        for name in dict.fromkeys(_set_of(check.official) for check in each):
            own = [check.state for check in each if _set_of(check.official) == name]
            counts = [sum(state in column for state in own) for column in _COLUMNS.values()]
            rows.append([name, str(len(own)), *map(str, counts)])
    bad = [check for each in checks.values() for check in each if not check.good]
    return markdown(["set", "files", *_COLUMNS], rows), bad


_COLUMNS: Mapping[str, Sequence[State]] = {
    "official": (State.SAME,),
    "same text, other bytes": (State.FOLDED,),
    "missing": (State.MISSING, State.UNREADABLE),
    "other rows": (State.ROWS,),
    "other content": (State.CONTENT,),
}


def _set_of(official: OfficialFile) -> str:
    return Path(official.path).parent.as_posix()


def _layout_below(folder: Path, wanted: Sequence[OfficialFile]) -> Path:
    """`folder`, or the folder at most two levels below it that holds SentEval's `downstream` layout."""
    if not is_dir(folder):
        raise DataError(Problem(where="--from", what=f"no such folder: {folder.absolute()}"))
    for place in [folder, *sorted(folder.glob("*/")), *sorted(folder.glob("*/*/"))]:
        if any(is_file(place / official.path) for official in wanted):
            return place
    return folder


def _copy(folder: Path, out: Path, wanted: Sequence[OfficialFile], *, allow_changed: bool) -> None:
    checks = check_files(folder, wanted)
    _require([check for check in checks if not _acceptable(check, allow_changed)])
    if resolve(folder) == resolve(out):
        return
    for check in checks:
        write_bytes(out / check.official.path, regular(check.place).read_bytes())


def _fetch_files(
    base: str, out: Path, wanted: Sequence[OfficialFile], console: Console, *, allow_changed: bool, wait: float
) -> None:
    problems: list[Problem] = []
    before = 0
    with console.bar("fetch", sum(official.bytes for official in wanted) // _KIB, "KiB") as bar:
        for official in wanted:

            def refuse(part: Path, official: OfficialFile = official) -> str | None:
                check = check_file(part, official)
                return None if _acceptable(check, allow_changed) else check.problem().what

            def advance(done: int, total: int | None, before: int = before, name: str = official.path) -> None:
                bar.update((before + done) // _KIB, file=Path(name).name)

            try:
                download(
                    f"{base}/{official.path}",
                    out / official.path,
                    refuse=refuse,
                    progress=advance,
                    wait=wait,
                    most_bytes=_most_bytes(official),
                )
            except UnreachableError as error:
                problems += error.problems  # the next file would fail in the same way
                break
            except DataError as error:
                problems += error.problems
            before += official.bytes
    if problems:
        raise DataError(problems)


def _fetch_archive(address: str, out: Path, console: Console, wait: float) -> Path:
    archive = out / address.rsplit("/", 1)[1]
    require_archive(archive)
    if address == PUBLIC_ADDRESS:
        console.say(f"note: {address} is the address that SimCSE's script names; it has not been tested")
    if not is_file(archive):
        _download_with_bar(address, archive, console, wait)
    return archive


def _unpack(archive: Path, out: Path, wanted: Sequence[OfficialFile], *, allow_changed: bool) -> None:
    with scratch_folder(out / "unpacked") as place:
        unpack(archive, place, {official.path: _most_bytes(official) for official in wanted})
        problems = [
            Problem(where=f"{archive}: {check.official.path}", what=_wrong_in_archive(check))
            for check in check_files(place, wanted)
            if not _acceptable(check, allow_changed)
        ]
        if problems:
            raise DataError(problems)
        _copy(place, out, wanted, allow_changed=allow_changed)


def _wrong_in_archive(check: FileCheck) -> str:
    return "not in the archive" if check.state == State.MISSING else check.problem().what


def _most_bytes(official: OfficialFile) -> int:
    """What a copy may have: other line ends and another encoding make it larger, but not twice as large."""
    return 2 * official.bytes + _KIB


def _download_with_bar(address: str, path: Path, console: Console, wait: float) -> None:
    with ExitStack() as stack:
        bars: list[Bar] = []

        def advance(done: int, total: int | None) -> None:
            if not bars:  # how much there is, only the server knows
                bars.append(stack.enter_context(console.bar("fetch", (total or 0) // _KIB, "KiB")))
            bars[0].update(done // _KIB)

        download(address, path, progress=advance, wait=wait, most_bytes=MOST_BYTES)


def _acceptable(check: FileCheck, allow_changed: bool) -> bool:
    return check.good or (allow_changed and check.changed)


def _require(bad: Sequence[FileCheck]) -> None:
    if bad:
        raise DataError([check.problem() for check in bad])
