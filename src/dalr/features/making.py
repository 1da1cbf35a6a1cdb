"""How was a store made? Rows made in another way are never mixed into it.

Vectors of two models in one folder would be indistinguishable, so a store (or an unfinished one) that was made
otherwise is neither overwritten nor continued; the message names both makings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dalr.errors import ConfigError, CorruptFileError, Problem
from dalr.features.decoding import MAX_PIXELS
from dalr.features.plan import is_plan
from dalr.features.store import FORMAT, FeatureStore, open_store, verify_store
from dalr.io.paths import entries, is_file, regular, require_place_for_folder
from dalr.io.sealed import MANIFEST, refuse_foreign

_RESULTS = ("distinct", "bad_images")
"""What a store says of its outcome, which is no part of how it was made."""
USUAL_LIMIT = MAX_PIXELS // 10**6
PLACES = ("model", "revision")
"""Where a model was found, which does not matter where its checksum is the same."""

MEMBERS = ("images", "ids_sha256")
"""Which images there are, the one thing that an update changes."""

LIMIT = "max_megapixels"
"""The largest image; unfinished work may continue with another, by which parts are then computed again."""

OTHER_OR_UPDATE = "choose another --out, or rerun with --update, which drops them"
"""The remedy where `--update` is offered."""


def stated_limit(megapixels: int) -> dict[str, int]:
    """The limit as a making states it: only where it is another than the usual one."""
    return {} if megapixels == USUAL_LIMIT else {LIMIT: megapixels}


def limit_of(making: Mapping[str, Any]) -> int:
    """The limit that a making states."""
    return int(making.get(LIMIT, USUAL_LIMIT))


def refuse_other_making(
    out: Path,
    making: Mapping[str, Any],
    *,
    unfinished: Path | None = None,
    resume: bool = False,
    update: bool = False,
) -> None:
    """Refuse to write over a store that was made otherwise; `unfinished` says how started work is being made.

    With `update`, the images may be others, and unfinished work is continued.

    Raises:
        ConfigError: another making, each difference with both values; or unfinished work without `resume`.
        StorageError: a folder of something else.
    """
    require_place_for_folder(out, "--out")
    refuse_foreign(out, FORMAT, None if unfinished is None else unfinished.parent.name)
    wanted = {key: value for key, value in making.items() if not (update and key in MEMBERS)}
    if (made := stated(out / MANIFEST, "metadata", "source")) is not None:
        _refuse_differences(out, "the store there", made, wanted, update)
    if unfinished is None or not is_file(unfinished):
        return
    if (started := stated(unfinished)) is not None:
        _refuse_differences(out, "the unfinished store there", started | {LIMIT: making.get(LIMIT)}, wanted, update)
    if not (resume or update) and not is_file(out / MANIFEST):
        refuse_unfinished(out, unfinished)


def refuse_unfinished(out: Path, started: Path) -> None:
    """Refuse to begin where work was `started` and not finished.

    Raises:
        ConfigError: saying how it is continued.
    """
    if is_file(started):
        merge = f"put the parts of --part together with dalr features merge {out}, "
        merge = merge if any(is_plan(path) for path in entries(started.parent)) else ""
        what = f"unfinished work of an earlier run; {merge}rerun with --resume, or delete {out} to start again"
        raise ConfigError(Problem(where=f"--out {out}", what=what))


def refuse_lost_rows(out: Path, ids: Iterable[str], advice: str) -> None:
    """Refuse to write over a store that has rows which the new one would not have; a damaged one is written anew.

    Raises:
        ConfigError: there are such rows, with one of them.
    """
    there = ids_of(out)
    wanted = set(ids)
    lost = [name for name in there if name not in wanted]
    if lost:
        what = f"{len(lost)} of the {len(there)} rows of the store there would be lost, such as {lost[0]!r:.100}"
        raise ConfigError(Problem(where=f"--out {out}", what=f"{what}; nothing was overwritten: {advice}"))


def ids_of(out: Path) -> dict[str, None]:
    """The names of the rows of a store, in their order; none where there is no store, or a damaged one."""
    if not is_file(out / MANIFEST):
        return {}
    try:
        return dict.fromkeys(open_store(out).ids)
    except CorruptFileError:
        return {}


def existing_store(out: Path, making: Mapping[str, Any]) -> FeatureStore | None:
    """The store at `out` if it is intact to the last byte and made in this way."""
    if not is_file(out / MANIFEST):
        return None
    try:
        verify_store(out)
        store = open_store(out)
    except CorruptFileError:
        return None
    return None if list(_differences(_plain(store.source), _plain(making))) else store


def stated(path: Path, *keys: str) -> dict[str, Any] | None:
    """A making as a file states it, also of a store that is damaged; None where it is unknown."""
    try:
        found = json.loads(regular(path).read_bytes())
        for key in keys:
            found = found[key]
        return _plain(found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _refuse_differences(
    out: Path, what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], update: bool
) -> None:
    if update:
        found = {key: value for key, value in found.items() if key not in MEMBERS}
    differences = list(_differences(found, _plain(wanted)))
    problems = [
        Problem(where=f"--out {out}", what=f"{what} was made with {key} {old!r}, now asked for {new!r}")
        for key, old, new in differences
    ]
    if problems:
        advice = "nothing was overwritten: choose another --out, or delete that one"
        if all(key in MEMBERS for key, _, _ in differences):
            advice = "nothing was overwritten: rerun with --update, which computes only what is new"
        raise ConfigError([*problems, Problem(where=f"--out {out}", what=advice)])


def _differences(found: Any, wanted: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        same_model = found.get("sha256") == wanted.get("sha256") is not None
        for name in dict.fromkeys([*wanted, *found]):
            if same_model and name in PLACES:
                continue
            yield from _differences(found.get(name), wanted.get(name), f"{key}.{name}" if key else str(name))
    elif found != wanted:
        yield key, found, wanted


def _plain(source: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, without the outcome."""
    plain: dict[str, Any] = json.loads(json.dumps({k: v for k, v in source.items() if k not in _RESULTS}))
    return plain
