"""`dalr push RUN REPO`: the product of a run and its card into a repository of the Hugging Face hub.

What goes is a list: the files that the model's manifest names, the manifest and the card. Nothing else of a run is
ever looked at, so no caption, no metric and no record can slip in with a later file. Files that people read are
searched for paths of this machine first. A new repository is private; one that is there keeps its visibility.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from dalr.errors import ConfigError, ModelFileError, Problem, StorageError
from dalr.evaluation.runs import recipe_of_run
from dalr.export.card import CARD, write_card
from dalr.io.paths import exists, is_file, regular, resolve, size_of
from dalr.io.sealed import MANIFEST, read_manifest
from dalr.models.absent import no_such
from dalr.models.reference import inside_run
from dalr.models.verification import PRODUCT, RECORD, VERSION
from dalr.recipe.paths import expand

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_READ_BY_PEOPLE = ("README.md", "config.json", "_config.json", "modules.json")
_SHORTEST_PATH = 8
"""Characters from which a path of this machine is looked for; /root would be found in a vocabulary."""


@runtime_checkable  # beartype asks, in the tests
class Hub(Protocol):
    """What is asked of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool, repo_type: str) -> Any: ...

    def upload_folder(
        self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str, repo_type: str
    ) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What goes to the hub, or would go."""

    repository: str
    files: dict[str, int]
    """Name -> bytes."""
    sent: bool
    private: bool

    def lines(self) -> list[str]:
        """For the terminal."""
        listed = [f"{size:>12,}  {name}" for name, size in self.files.items()]
        total = f"{sum(self.files.values()):>12,}  bytes in {len(self.files)} files"
        kind = "private" if self.private else "public"
        dry = f"nothing was sent; a new {self.repository} would be {kind}"
        return [*listed, total, f"uploaded to {self.repository}" if self.sent else dry]


def push(
    run: str, repository: str, *, private: bool = True, dry_run: bool = False, hub: Hub | None = None
) -> Pushed:
    """Upload the model of a finished run.

    Args:
        hub: in place of the Hugging Face hub.

    Raises:
        ConfigError: not a run, not the name of a repository, or a file that names a path of this machine.
        CorruptFileError: the model is not as the run wrote it.
        StorageError: the hub cannot be reached, or refuses.
    """
    if not _REPOSITORY.fullmatch(repository):
        what = f"expected OWNER/NAME of letters, digits, '-', '_' and '.', found {repository!r:.80}"
        raise ConfigError(Problem(where="REPO", what=what))
    folder = expand(run)
    if not exists(folder, ModelFileError):
        raise ModelFileError(Problem(where="RUN", what=f"{run}: {no_such(folder, 'run')}"))
    if not is_file(folder / RECORD, ModelFileError):
        what = f"expected the folder of a run, with {RECORD} in it; a model of others is not uploaded"
        raise ConfigError(Problem(where=f"RUN {run!r:.80}", what=what))
    model = Path(inside_run(run))
    manifest = read_manifest(model, format=PRODUCT, version=VERSION, remedy="train it again, or restore the folder")
    write_card(folder)
    names = [*manifest.files, MANIFEST, CARD]
    _refuse_private_paths(folder, model, names)
    files = {name: size_of(model / name, ModelFileError) for name in sorted(names)}
    if not dry_run:
        _upload(hub or _hub(), repository, model, list(files), private=private)
    return Pushed(repository=repository, files=files, sent=not dry_run, private=private)


def _hub() -> Hub:
    from huggingface_hub import HfApi

    hub: Hub = HfApi()
    return hub


def _upload(hub: Hub, repository: str, model: Path, names: list[str], *, private: bool) -> None:
    try:
        hub.create_repo(repository, private=private, exist_ok=True, repo_type="model")
        hub.upload_folder(
            repo_id=repository,
            folder_path=str(model),
            allow_patterns=names,
            commit_message="Model trained by dalr",
            repo_type="model",
        )
    except Exception as error:
        reason = " ".join(str(error).split()) or repr(error)
        what = f"cannot be uploaded ({type(error).__name__}: {reason:.200}); log in with: hf auth login"
        raise StorageError(Problem(where=repository, what=what)) from error


def _refuse_private_paths(run: Path, model: Path, names: list[str]) -> None:
    """Refuse files that people read and that name a folder of this machine or a file of the data.

    Raises:
        ConfigError: with each of them.
    """
    private = set(_private_paths(run))
    problems = []
    for name in names:
        if not name.endswith(_READ_BY_PEOPLE):
            continue
        text = regular(model / name).read_text(encoding="utf-8", errors="replace")
        problems += [
            Problem(where=str(model / name), what=f"names {path}, a path of this machine; remove it first")
            for path in sorted(private)
            if path in text
        ]
    if problems:
        raise ConfigError(problems)


def _private_paths(run: Path) -> Iterator[str]:
    recipe = recipe_of_run(run)
    named = [recipe.data.root, recipe.data.pairs, recipe.data.text, recipe.features.image]
    named += [recipe.features.clip_text, recipe.student.model, *(teacher.model for teacher in recipe.teachers)]
    found = [resolve(run), resolve(Path.cwd()), Path.home()]
    found += [Path(each) for each in named if each is not None and Path(each).is_absolute()]
    for path in found:
        if len(str(path)) >= _SHORTEST_PATH:
            yield str(path)
