"""How is a pairs file read? Three keys of a recipe's data section, and three command-line options, say it.

One type for both, so that vectors are computed for exactly the captions and images that a recipe then trains on.
"""

from __future__ import annotations

from dalr.data.choices import FormatName
from dalr.data.formats.choice import FORMATS
from dalr.data.formats.collecting import Columns
from dalr.errors import ConfigError, Problem, did_you_mean
from dalr.recipe.section import Section


class Reading(Section):
    """What a pairs file is, what its columns are called, and which of its splits is meant."""

    format: FormatName | None = None
    """One of `FORMATS`; None tells it by the name and the content."""
    columns: Columns = Columns()
    split: str | tuple[str, ...] | None = "all"
    """The splits to keep; None keeps everything of a file that has not more than one."""

    def other_columns(self) -> dict[str, str]:
        """The columns that have names of their own."""
        return dict(self.columns.model_dump(exclude_defaults=True))

    def options(self) -> list[str]:
        """The same as options of the command line; None for the split, not given."""
        options = ["--format", self.format] if self.format is not None else []
        if columns := self.other_columns():
            options += ["--columns", ",".join(f"{key}={name}" for key, name in columns.items())]
        if self.split is not None:
            options += ["--split", self.split if isinstance(self.split, str) else ",".join(self.split)]
        return options


def reading_of_options(format: str | None, columns: str | None, split: str | None) -> Reading:
    """What `--format csv`, `--columns image=file,caption=text` and `--split train,val` say; None: not given.

    Raises:
        ConfigError: with every problem of the three.
    """
    problems: list[Problem] = []
    if format is not None and format not in FORMATS:
        problems.append(Problem(where="--format", what=f"expected one of {', '.join(FORMATS)}, found {format!r}"))
    named = _columns(columns, problems) if columns is not None else {}
    splits = tuple(name.strip() for name in split.split(",")) if split is not None else (None,)
    if split is not None and (not all(splits) or ("all" in splits and len(splits) > 1)):
        what = f"expected one name, several with commas, or all, found {split!r}"
        problems.append(Problem(where="--split", what=what))
    if problems:
        raise ConfigError(problems)
    return Reading.model_validate(
        {"format": format, "columns": named, "split": splits[0] if len(splits) == 1 else splits}
    )


def _columns(text: str, problems: list[Problem]) -> dict[str, str]:
    found: dict[str, str] = {}
    known = list(Columns.model_fields)
    names = ", ".join(f"{key}=NAME" for key in known if key != "separator")
    for part in text.split(","):
        key, separator, name = (each.strip() for each in part.partition("="))
        if key not in known or not separator or not name:
            hint = did_you_mean(key, known) if separator and key not in known else ""
            what = f"expected {names} with commas, found {part!r}; {hint}separator=MARK is for other CSV"
            problems.append(Problem(where="--columns", what=what))
        elif key in found:
            problems.append(Problem(where="--columns", what=f"{key} is given twice, {found[key]!r} and {name!r}"))
        elif key == "separator" and name not in ";|:":
            problems.append(Problem(where="--columns", what=f"separator: expected one of ; | :, found {name!r}"))
        else:
            found[key] = name
    return found
