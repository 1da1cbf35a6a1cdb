"""How do records become a table? As a pandas DataFrame, where pandas is installed; nothing else here needs it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dalr.errors import ConfigError

if TYPE_CHECKING:
    import pandas


def data_frame(records: Iterable[Mapping[str, Any]]) -> pandas.DataFrame:
    """One row per record; nested values have columns such as `terms.infonce`.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ConfigError("to_frame() needs pandas, which is not installed: pip install pandas") from None
    return pandas.DataFrame([dict(_flat(record, "")) for record in records])


def _flat(record: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
