"""Search, health, metrics, disconnections and the end of a service."""

from __future__ import annotations

import asyncio
import base64
import errno
import io
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_toys import serve
from starlette.testclient import TestClient

import dalr
from dalr.errors import ConfigError, DataError, ModelFileError
from dalr.inference.encode import EncodeOptions
from dalr.inference.searcher import Searcher
from dalr.serving.app import build_app
from dalr.serving.limits import Limits
from dalr.serving.metrics import Counter, Histogram
from dalr.serving.server import _listening, _refused, _Server
from dalr.serving.service import ServeOptions, Service
from tiny import Outcome, Toys
from tiny_images import photo, save_photos, save_tiny_image_model

Cli = Callable[..., Outcome]
CPU = EncodeOptions(device="cpu")


def embedding(answer: Any) -> list[float]:
    numbers: list[float] = answer.json()["data"][0]["embedding"]
    return numbers


@pytest.mark.parametrize("within", ["images", "captions"])
def test_search_answers_what_a_searcher_does(of_run: TestClient, run: Path, within: Any) -> None:
    sentence = "a red dog runs on the grass"
    expected = [hit.as_json() for hit in Searcher(run, device="cpu").search(sentence, k=3, within=within)]
    asked = of_run.get("/search", params={"q": sentence, "k": 3, "in": within})
    sent = of_run.post("/search", json={"q": sentence, "k": 3, "in": within})
    assert asked.json() == sent.json()
    assert (asked.json()["model"], asked.json()["in"]) == ("photos", within)
    for found, wanted in zip(asked.json()["hits"], expected, strict=True):
        assert found.pop("score") == pytest.approx(wanted.pop("score"), abs=1e-5)
        assert found == {**wanted, "captions": list(wanted["captions"])}


def test_an_image_of_the_collection_is_named_by_its_key_and_never_by_a_path(of_run: TestClient, run: Path) -> None:
    found = of_run.get("/search", params={"image_id": "005.jpg", "k": 2}).json()["hits"]
    assert [each["id"] for each in found] == [
        hit.id for hit in Searcher(run, device="cpu").search_image("005.jpg", k=2)
    ]
    for key in ("nowhere/005.jpg", str(run / "run.json"), "005"):
        refused = of_run.get("/search", params={"image_id": key})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_image")


@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        ({}, 400, "expected one of q, image and image_id, found none"),
        ({"q": "a", "image_id": "005.jpg"}, 400, "found q and image_id"),
        ({"q": " "}, 400, "q: expected text, found a blank string"),
        ({"q": "a", "k": 0}, 422, "k: expected 1 to 1000, found 0"),
        ({"q": "a", "k": 1001}, 422, "k: expected 1 to 1000, found 1001"),
        ({"q": "a", "in": "sounds"}, 400, "in: Input should be 'images' or 'captions', found 'sounds'"),
        ({"q": "a", "top": 3}, 400, "top: Extra inputs"),
        ({"image": "***"}, 400, "image: not base64"),
        ({"image": "aGVsbG8="}, 400, "name it with --vision MODEL"),
    ],
)
def test_searches_that_make_no_sense_are_refused(
    of_run: TestClient, asked: dict[str, Any], status: int, message: str
) -> None:
    answer = of_run.post("/search", json=asked)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"]["message"]


def test_an_image_file_finds_images_like_it(toys: Toys, tmp_path: Path, cli: Cli) -> None:
    names = save_photos(tmp_path / "images", 24)
    clip = save_tiny_image_model(tmp_path / "clip", "clip")
    captions = "".join(f"{name}\t{texts[0]}\n" for name, texts in zip(names, toys.data.captions, strict=True))
    (tmp_path / "pairs.tsv").write_text("image\tcaption\n" + captions)
    place = ("--pairs", tmp_path / "pairs.tsv", "--images", tmp_path / "images", "--out", tmp_path / "store")
    made = cli("features", "images", *place, "--model", clip, "--workers", 0, "--device", "cpu", "-q")
    assert made.code == 0, made.err
    data = {"pairs": str(tmp_path / "pairs.tsv"), "text": str(toys.data.text), "max_tokens": 16}
    features = {"image": str(tmp_path / "store")}
    run = dalr.train(toys.recipe(tmp_path, data=data, features=features), out=tmp_path / "run").run
    service, client = serve(ServeOptions(model=str(run), encode=CPU))
    file = io.BytesIO()
    photo(3).save(file, "PNG")
    answer = client.post("/search", json={"image": base64.b64encode(file.getvalue()).decode(), "k": 2})
    assert answer.status_code == 200, answer.text
    first = answer.json()["hits"][0]
    assert (first["id"], first["score"]) == (names[3], pytest.approx(1, abs=1e-3))
    broken = client.post("/search", json={"image": base64.b64encode(file.getvalue()[:60]).decode()})
    assert (broken.status_code, "image: " in broken.json()["error"]["message"]) == (400, True)
    service.close()


def test_a_model_alone_has_no_search_and_says_so(of_model: TestClient) -> None:
    for answer in (of_model.get("/search?q=a"), of_model.post("/search", json={"q": "a"})):
        assert answer.status_code == 404
        assert "a model alone has nothing to search" in answer.json()["error"]["message"]
    health = of_model.get("/health")
    assert (health.status_code, health.json()["status"], health.json()["embeddings"]) == (200, "ready", "ready")
    assert "nothing to search" in health.json()["images"]


def test_other_collections_are_named(toys: Toys, tmp_path: Path) -> None:
    options = ServeOptions(model=str(toys.teacher), pairs=toys.data.pairs, encode=CPU)
    service, client = serve(options)
    sentence = toys.data.captions[3][1]
    hit = client.get("/search", params={"q": sentence, "in": "captions"}).json()["hits"][0]
    assert hit["captions"] == [sentence]
    refused = client.get("/search", params={"q": sentence})
    assert (refused.status_code, "does not search images: " in refused.json()["error"]["message"]) == (404, True)
    service.close()
    wrong = Service(ServeOptions(model=str(toys.teacher), pairs=tmp_path / "none.jsonl", encode=CPU))
    with pytest.raises(DataError):
        wrong.load()
    wrong.close()


def test_search_can_be_left_out_or_asked_for(run: Path, toys: Toys) -> None:
    service, client = serve(ServeOptions(model=str(run), search=False, encode=CPU))
    assert "--no-search" in client.get("/search?q=a").json()["error"]["message"]
    service.close()
    asked = Service(ServeOptions(model=str(toys.teacher), search=True, encode=CPU))
    with pytest.raises(ConfigError, match="a model alone has nothing to search"):
        asked.load()
    asked.close()


def test_before_the_model_is_loaded_health_and_answers_say_so(run: Path) -> None:
    service = Service(ServeOptions(model=str(run), encode=CPU))
    client = TestClient(build_app(service))
    health = client.get("/health")
    assert (health.status_code, health.json()["status"], health.json()["captions"]) == (503, "loading", "loading")
    for answer in (client.post("/v1/embeddings", json={"input": "a"}), client.get("/search?q=a")):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["error"]["type"] == "server_error"
    assert "dalr_ready 0" in client.get("/metrics").text
    service.close()
    assert client.get("/health").json()["status"] == "stopping"


def test_a_model_that_cannot_be_loaded_ends_the_service_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    service = Service(ServeOptions(model=str(tmp_path / "empty"), encode=CPU))
    failed, ready = threading.Event(), threading.Event()
    service.start(on_failure=failed.set, on_ready=ready.set)
    assert failed.wait(60)
    service.close()
    assert isinstance(service.failure, ModelFileError | ConfigError)
    assert not ready.is_set()


def test_concurrent_requests_share_batches_and_get_the_vectors_they_get_alone(run: Path) -> None:
    service, client = serve(ServeOptions(model=str(run), search=False, encode=CPU, limits=Limits(max_batch=16)))
    sentences = [
        f"a {color} dog runs on the grass {'again ' * (i % 5)}" for i, color in enumerate(["red", "blue"] * 12)
    ]
    alone = [
        client.post("/v1/embeddings", json={"input": each}).json()["data"][0]["embedding"] for each in sentences
    ]
    with client:  # one event loop for all that follow

        async def together() -> list[Any]:
            from httpx2 import ASGITransport, AsyncClient

            async with AsyncClient(transport=ASGITransport(app=client.app), base_url="http://testserver") as many:
                return await asyncio.gather(*(many.post("/v1/embeddings", json={"input": s}) for s in sentences))

        answers = asyncio.run(together())
    assert np.allclose([a.json()["data"][0]["embedding"] for a in answers], alone, atol=1e-5)
    batches = service.metrics.batch_rows
    assert batches.sums[()] == 2 * len(sentences)
    assert sum(batches.counts[()]) < 2 * len(sentences)


def test_a_client_that_leaves_takes_its_rows_out_of_the_queue(run: Path) -> None:
    service, client = serve(ServeOptions(model=str(run), search=False, encode=CPU))
    encode, entered, hold = service._batcher.encode, threading.Event(), threading.Event()  # type: ignore[union-attr]

    def slowly(rows: Any) -> Any:
        entered.set()
        assert hold.wait(20)
        return encode(rows)

    service._batcher.encode = slowly  # type: ignore[union-attr]
    body = b'{"input": "a dog"}'
    sent: list[dict[str, Any]] = []

    async def leave() -> None:
        blocked = service.submit(["first"])
        assert entered.wait(20)
        messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": headers}
        scope |= {
            "query_string": b"",
            "http_version": "1.1",
            "scheme": "http",
            "server": ("t", 80),
            "root_path": "",
        }
        await client.app(scope, receive, send)  # type: ignore[arg-type]
        assert service._batcher.waiting() == 0  # type: ignore[union-attr]
        hold.set()
        assert len(blocked.result(timeout=20).vectors) == 1

    asyncio.run(leave())
    assert 'status="499"' in service.metrics.text()
    assert service.metrics.batch_rows.sums[()] == 1
    service.close()


def test_an_error_of_ours_is_one_answer_and_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service, client = serve(ServeOptions(model=str(run), search=False, encode=CPU))

    def broken(rows: Any) -> Any:
        raise RuntimeError("out of memory")

    service._batcher.encode = broken  # type: ignore[union-attr]
    answer = client.post("/v1/embeddings", json={"input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "out of memory" not in answer.text
    assert "RuntimeError: out of memory" in capsys.readouterr().err
    assert client.get("/health").status_code == 200
    service.close()


def test_unknown_addresses_name_those_that_there_are(of_model: TestClient) -> None:
    for method, path, status in (("GET", "/v2/embeddings", 404), ("GET", "/v1/embeddings", 405)):
        answer = of_model.request(method, path)
        assert answer.status_code == status
        assert "/v1/embeddings, /v1/models" in answer.json()["error"]["message"]
    assert of_model.get("/").json()["model"] == "tiny"


def test_metrics_are_in_the_format_of_prometheus(of_model: TestClient) -> None:
    of_model.post("/v1/embeddings", json={"input": "a dog"})
    answer = of_model.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert answer.text.endswith("\n")
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {"dalr_requests_total", "dalr_request_seconds", "dalr_waiting_rows", "dalr_batch_rows"} <= names
    for line in lines:
        if not line.startswith("#"):
            assert float(line.rsplit(" ", 1)[1]) >= 0


def test_a_histogram_counts_what_is_not_above_each_bound() -> None:
    histogram = Histogram(name="h", help="H.", bounds=(1.0, 2.5))
    for value in (0.5, 1, 2, 9):
        histogram.add(value, path='a"b\n')
    assert histogram.lines()[2:] == [
        'h_bucket{path="a\\"b\\n",le="1"} 2',
        'h_bucket{path="a\\"b\\n",le="2.5"} 3',
        'h_bucket{path="a\\"b\\n",le="+Inf"} 4',
        'h_sum{path="a\\"b\\n"} 12.5',
        'h_count{path="a\\"b\\n"} 4',
    ]
    counter = Counter(name="c", help="C.")
    counter.add(3)
    assert counter.lines() == ["# HELP c C.", "# TYPE c counter", "c 3"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_rows": 0}, "--max-rows: expected at least 1"),
        ({"max_rows": 100, "max_waiting": 50}, "--max-waiting: 50 rows may wait, but a request may have 100"),
        ({"max_wait_ms": -1.0}, "--max-wait-ms: expected 0 to 10000"),
        ({"max_wait_ms": float("nan")}, "--max-wait-ms: expected 0 to 10000"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Limits(**limits)


def test_a_port_in_use_is_said_before_a_model_is_loaded(cli: Cli) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli("serve", "no/such/model", "--port", port)
    assert done.code == 2
    assert f"--port: {port} is in use on 127.0.0.1; stop what uses it, or name another port" in done.err


def test_addresses_that_cannot_be_listened_on_are_refused() -> None:
    with pytest.raises(ConfigError, match="--host"), _listening("192.0.2.1", 0):
        pass
    assert "1024 to 65535" in _refused("127.0.0.1", 80, OSError(errno.EACCES, "Permission denied")).what


def test_the_first_signal_lets_requests_finish_and_the_second_does_not() -> None:
    import uvicorn

    service = Service(ServeOptions(model="none"))
    client = TestClient(build_app(service))
    assert "connection" not in client.get("/").headers
    server = _Server(uvicorn.Config(lambda: None), service)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with server.capture_signals():
        signal.raise_signal(signal.SIGTERM)
        assert (server.should_exit, server.force_exit) == (True, False)
        signal.raise_signal(signal.SIGTERM)
        assert (server.should_exit, server.force_exit) == (True, True)
    assert client.get("/").headers["connection"] == "close"
    service.close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_data_that_is_gone_leaves_the_embeddings(toys: Toys, tmp_path: Path) -> None:
    import shutil

    pairs = tmp_path / "pairs.jsonl"
    shutil.copy(toys.data.pairs, pairs)
    data = {"pairs": str(pairs), "text": str(toys.data.text), "max_tokens": 16}
    run = dalr.train(toys.recipe(tmp_path, data=data), out=tmp_path / "run").run
    pairs.unlink()
    service, client = serve(ServeOptions(model=str(run), encode=CPU))
    assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
    assert "pairs.jsonl" in client.get("/search?q=a").json()["error"]["message"]
    service.close()
    required = Service(ServeOptions(model=str(run), encode=CPU, search=True))
    with pytest.raises(DataError):
        required.load()
    required.close()


@pytest.mark.slow
def test_a_request_that_was_accepted_is_answered_after_sigterm(toys: Toys) -> None:
    command = [sys.executable, "-m", "dalr", "serve", str(toys.teacher), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    lines = iter(process.stderr)
    port = int(re.search(r":(\d+) ", next(line for line in lines if line.startswith("loading")))[1])  # type: ignore[index]
    assert any(line.startswith("serving") for line in lines)
    body = b'{"input": "a red dog"}'
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode() + body[:9])
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(body[9:])
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer
    assert process.wait(timeout=60) == 0
    process.stderr.close()
