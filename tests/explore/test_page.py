"""The page that gradio draws is served on this machine, and asks no other one for anything."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import dalr
from tiny import Toys

pytest.importorskip("gradio")
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def run(toys: Toys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    data = {"pairs": str(toys.data.pairs), "text": str(toys.data.text), "max_tokens": 16}
    data |= {"holdout": {"validation_fraction": 0.25, "test_fraction": 0.25}}
    return dalr.train(toys.recipe(folder, data=data), out=folder / "run").run


@contextlib.contextmanager
def serving(run: Path, uploads: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`dalr explore` in a process that can reach only this machine; its address."""
    path = os.pathsep.join([str(SOURCE), os.environ["PYTHONPATH"]])
    done = subprocess.Popen(
        [sys.executable, "-m", "dalr", "explore", str(run), "--port", "0", "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(uploads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert done.stdout is not None
        assert done.stderr is not None
        line = done.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line + done.stderr.read()
        yield line.split()[0], done
    finally:
        done.kill()
        done.communicate(timeout=60)


def fetched(address: str, **headers: str) -> str:
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return str(answer.read().decode())


def asked(address: str, function: str, *values: object) -> str:
    """What a function of the page answers, as the page asks it."""
    config = json.loads(fetched(f"{address}config"))
    number = next(each["id"] for each in config["dependencies"] if each["api_name"] == function)
    body = json.dumps({"data": values, "fn_index": number, "session_hash": "test"}).encode()
    joined = urllib.request.Request(
        f"{address}gradio_api/queue/join", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(joined, timeout=60):
        pass
    for line in fetched(f"{address}gradio_api/queue/data?session_hash=test").splitlines():
        event = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
        if event.get("msg") == "process_completed":
            return str(event["output"]["data"][0])
    raise AssertionError("no answer")


def test_it_is_served_answers_and_stops(run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path) as (address, process):
        page = fetched(address)
        config = json.loads(fetched(f"{address}config"))
        assert (config["title"], config["analytics_enabled"]) == ("dalr explore", False)
        styles = "".join(map(str, (config.get("css"), config.get("stylesheets"), fetched(f"{address}theme.css"))))
        assert re.findall(r"googleapis|gstatic|cdnjs|jsdelivr|@import", page + styles) == []
        loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["'](https?:)?//""", page)
        assert loaded == []
        assert asked(address, "sentence", "a red dog").count('class="dalr-images"') == 1

        with pytest.raises(urllib.error.HTTPError, match="400"):
            fetched(address, Host="elsewhere.example:80")  # a web page whose own name leads here
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            fetched(f"{address}gradio_api/file={run / 'run.json'}")

        [uploads] = tmp_path.glob("dalr-explore-*")
        assert uploads.stat().st_mode & 0o077 == 0
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, "Traceback" in said) == (0, False), said
        assert list(tmp_path.glob("dalr-explore-*")) == []


def test_sigterm_stops_it_as_ctrl_c_does(run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path) as (_, process):
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert list(tmp_path.glob("dalr-explore-*")) == []
