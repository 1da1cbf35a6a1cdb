"""Embeddings have OpenAI's shapes and the vectors of `SentenceTransformer.encode`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from sentence_transformers import SentenceTransformer
from serving_toys import LIMITS, serve
from starlette.testclient import TestClient

from dalr.inference.encode import EncodeOptions
from dalr.serving.service import ServeOptions
from tiny import Toys

ROWS = ["a red dog runs on the grass", "two cats", "a red dog runs on the grass"]


def ask(client: TestClient, **body: Any) -> Any:
    return client.post("/v1/embeddings", json=body)


@pytest.fixture(scope="module")
def expected(toys: Toys) -> np.ndarray:
    model = SentenceTransformer(str(toys.teacher), device="cpu")
    return model.encode(ROWS, show_progress_bar=False)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_are_those_of_sentence_transformers_in_order(
    of_model: TestClient, expected: np.ndarray, encoding: str
) -> None:
    answer = ask(of_model, input=ROWS, encoding_format=encoding, model="tiny")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["object"], body["model"]) == ("list", "tiny")
    assert [each["index"] for each in body["data"]] == [0, 1, 2]
    found = [each["embedding"] for each in body["data"]]
    if encoding == "base64":
        found = [np.frombuffer(base64.b64decode(each), "<f4") for each in found]
    assert np.allclose(found, expected, atol=1e-6)


def test_a_string_is_one_row_and_tokens_are_counted(of_model: TestClient, toys: Toys, expected: np.ndarray) -> None:
    body = ask(of_model, input=ROWS[1]).json()
    assert np.allclose([each["embedding"] for each in body["data"]], expected[1:2], atol=1e-6)
    tokenizer = SentenceTransformer(str(toys.teacher), device="cpu").tokenizer
    count = len(tokenizer(ROWS[1])["input_ids"])
    assert body["usage"] == {"prompt_tokens": count, "total_tokens": count}


def test_fewer_dimensions_are_the_first_numbers_at_length_1(of_model: TestClient, expected: np.ndarray) -> None:
    for dim in (1, 5, expected.shape[1]):
        found = np.asarray([each["embedding"] for each in ask(of_model, input=ROWS, dimensions=dim).json()["data"]])
        first = expected[:, :dim]
        assert np.allclose(found, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)


def test_the_official_client_gets_the_same(of_model: TestClient, expected: np.ndarray) -> None:
    client = openai.OpenAI(
        api_key="any", base_url="http://testserver/v1", http_client=of_model, max_retries=0, timeout=60
    )
    answer = client.embeddings.create(model="tiny", input=ROWS)
    assert np.allclose([each.embedding for each in answer.data], expected, atol=1e-6)
    assert answer.usage.prompt_tokens > 0
    shorter = client.embeddings.create(model="tiny", input="two cats", dimensions=3, encoding_format="float")
    assert len(shorter.data[0].embedding) == 3
    assert [each.id for each in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "dalr"
    with pytest.raises(openai.NotFoundError, match="this service has 'tiny'"):
        client.embeddings.create(model="text-embedding-3-small", input="a")
    with pytest.raises(openai.BadRequestError, match="send text") as refused:
        client.embeddings.create(model="tiny", input=[[1, 2, 3]])
    assert refused.value.code == "token_ids"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"input": [1, 2, 3]}, 400, "input[0]: expected a string, found 1; token ids are"),
        ({"input": [[1, 2], [3]]}, 400, "input[0]: expected a string, found a list; token ids are"),
        ({"input": []}, 400, "at least one string"),
        ({"input": ""}, 400, "input: expected text, found a blank string"),
        ({"input": ["a", " \n"]}, 400, "input[1]: expected text, found a blank string"),
        ({"input": None}, 400, "a string or a list of strings, found null"),
        ({"input": {"a": 1}}, 400, "found an object"),
        ({"input": ["a", True]}, 400, "input[1]: expected a string, found true or false"),
        ({"input": ["a", ["b"]]}, 400, "input[1]: expected a string, found a list"),
        ({}, 400, "input: Field required"),
        ({"input": "a", "dimensions": 0}, 400, "dimensions: expected 1 to 24"),
        ({"input": "a", "dimensions": 25}, 400, "dimensions: expected 1 to 24, the dimension of tiny, found 25"),
        ({"input": "a", "dimensions": "4"}, 400, "dimensions: Input should be a valid integer, found '4'"),
        ({"input": "a", "dimensions": True}, 400, "dimensions"),
        ({"input": "a", "dimension": 4}, 400, "dimension: Extra inputs"),
        ({"input": "a", "encoding_format": "hex"}, 400, "encoding_format"),
        ({"input": "a", "model": "other"}, 404, "model 'other' is not served here; this service has 'tiny'"),
        ({"input": ["a"] * 6}, 422, "6 rows, at most 5 per request"),
        ({"input": ["a", "b" * 201]}, 422, "input[1]: 201 characters, at most 200 per row"),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_openais_shape(
    of_model: TestClient, body: dict[str, Any], status: int, message: str
) -> None:
    answer = of_model.post("/v1/embeddings", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b'{"input": ', "application/json", 400, "Invalid JSON"),
        (b"[]", "application/json", 400, "body"),
        (b"\xff\xfe", "application/json", 400, "body"),
        (b'{"input": "\\ud800"}', "application/json", 400, "body"),
        (b'{"input": "a"}', "text/plain", 415, "expected Content-Type: application/json, found 'text/plain'"),
        (b'{"input": "' + b"a" * 2**20 + b'"}', "application/json", 413, "more than the 1 MB allowed"),
    ],
)
def test_a_body_that_is_none_is_refused(
    of_model: TestClient, content: bytes, kind: str, status: int, message: str
) -> None:
    answer = of_model.post("/v1/embeddings", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_a_body_of_unstated_length_is_bounded_too(of_model: TestClient) -> None:
    parts = (b"a" * 2**16 for _ in range(40))
    answer = of_model.post("/v1/embeddings", content=parts, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")


def test_rows_longer_than_the_model_reads_are_cut_and_counted(of_model: TestClient, toys: Toys) -> None:
    long = "a red dog runs on the grass " * 6
    answer = ask(of_model, input=["a dog", long])
    assert (answer.status_code, answer.headers["x-dalr-cut-rows"]) == (200, "1")
    assert answer.json()["usage"]["prompt_tokens"] == 4 + 12
    assert "dalr_cut_rows_total 1" in of_model.get("/metrics").text
    encode = EncodeOptions(device="cpu", max_tokens=12)
    service, strict = serve(ServeOptions(model=str(toys.teacher), encode=encode, on_long="error", limits=LIMITS))
    refused = ask(strict, input=["a dog", long])
    assert refused.status_code == 422
    assert "input[1]: 1 of the rows are longer than the 12 tokens" in refused.json()["error"]["message"]
    service.close()


def test_bf16_and_lengths_are_options(toys: Toys, expected: np.ndarray) -> None:
    encode = EncodeOptions(device="cpu", precision="bf16", normalize=False)
    service, client = serve(ServeOptions(model=str(toys.teacher), encode=encode))
    found = np.asarray([each["embedding"] for each in ask(client, input=ROWS).json()["data"]])
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs(lengths - 1).max() > 1e-3
    assert np.allclose(found / lengths, expected, atol=0.02)
    assert client.get("/v1/models").json()["data"][0]["id"] == Path(toys.teacher).name
    service.close()


def test_the_description_for_programs_names_what_is_sent(of_model: TestClient) -> None:
    described = json.loads(of_model.get("/openapi.json").text)
    sent = described["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(sent["properties"]) == {"input", "model", "encoding_format", "dimensions", "user"}
    assert of_model.get("/docs").status_code == 404
