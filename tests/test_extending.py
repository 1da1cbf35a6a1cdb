"""The examples of docs/extending.md run as they stand, one after the other, in one namespace."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dalr.models.vision import load_vision_model
from tiny import Toys

PAGE = Path(__file__).parent.parent / "docs" / "extending.md"


@pytest.fixture(autouse=True)
def no_terms_left_behind() -> Iterator[None]:
    from dalr.losses import registry
    from dalr.models import image_encoder

    tables: list[dict[str, Any]] = [registry._registered, image_encoder._registered]  # type: ignore[list-item]
    before = [dict(table) for table in tables]
    yield
    for table, kept in zip(tables, before, strict=True):
        table.clear()
        table.update(kept)


def test_every_example_runs(
    toys: Toys, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"FOLDER": str(toys.student), "SENTEVAL": str(shared / "data" / "senteval")}
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"))
    assert len(blocks) == 6
    for code in blocks:
        exec(compile(code, str(PAGE), "exec"), names)
    assert names["result"].steps == 20
    assert {"infonce", "pull"} <= set(names["result"].metrics[-2]["terms"])
    assert "infonce" in capsys.readouterr().out
    inputs = names["dalr"].Inputs(*(names["torch"].randn(2, 4, 8)), image=names["torch"].randn(4, 6))
    assert names["ImageCosine"]()(inputs) > 0
    assert load_vision_model("plugin:tiles", device="cpu").embed_images([Image.new("RGB", (9, 9))]).shape == (1, 48)
