"""Token streams: what the tokenizer gives, kept in the cache, with what was cut counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dalr.data.tokens import TokenStream, tokenised
from dalr.io.cache import cache_folder
from tiny import captions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONG = "the city and the river and the first snow of the year " * 5
SENTENCES = [*captions(20), "a dog", "a dog", LONG, "ünknown €"]
MAX_TOKENS = 9


@pytest.fixture
def tokenizer(tiny_bert: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(tiny_bert)
    return loaded


@pytest.fixture
def work(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sentences each call of the tokenizer was given."""
    calls: list[int] = []
    call = type(tokenizer).__call__

    def counted(self: Any, text: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(len(text))
        return call(self, text, *arguments, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", counted)
    return calls


def rows(stream: TokenStream) -> list[list[int]]:
    return [stream.row(index).tolist() for index in range(len(stream))]


def entries() -> int:
    folder = cache_folder("tokens")
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_rows_are_what_the_tokenizer_gives(tokenizer: PreTrainedTokenizerBase, fresh_cache: Path) -> None:
    stream = tokenised(SENTENCES, tokenizer, max_tokens=MAX_TOKENS)
    expected = tokenizer(SENTENCES, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert rows(stream) == expected
    assert len(stream) == len(SENTENCES)
    assert max(map(len, rows(stream))) == MAX_TOKENS
    assert isinstance(stream.tokens, np.memmap), "resident memory does not grow with the data"


def test_rows_are_the_same_in_any_chunks(tokenizer: PreTrainedTokenizerBase, fresh_cache: Path) -> None:
    stream = tokenised(SENTENCES, tokenizer, max_tokens=MAX_TOKENS, at_once=7)
    assert rows(stream) == tokenizer(SENTENCES, truncation=True, max_length=MAX_TOKENS)["input_ids"]


def test_what_is_cut_is_counted(tokenizer: PreTrainedTokenizerBase, fresh_cache: Path) -> None:
    whole = [len(ids) for ids in tokenizer(SENTENCES)["input_ids"]]
    for limit in (4, max(whole[:20]) - 1, max(whole[:20]), 48):
        stream = tokenised(SENTENCES, tokenizer, max_tokens=limit)
        assert stream.truncated == sum(length > limit for length in whole)


def test_a_sentence_of_exactly_the_limit_is_not_cut(tokenizer: PreTrainedTokenizerBase, fresh_cache: Path) -> None:
    exact = "a dog runs"
    stream = tokenised([exact], tokenizer, max_tokens=5)
    assert stream.truncated == 0
    assert rows(stream) == [tokenizer(exact)["input_ids"]]


def test_the_second_time_comes_from_the_cache(
    tokenizer: PreTrainedTokenizerBase, fresh_cache: Path, work: list[int]
) -> None:
    first = tokenised(SENTENCES, tokenizer, max_tokens=MAX_TOKENS)
    done = len(work)
    second = tokenised(SENTENCES, tokenizer, max_tokens=MAX_TOKENS)
    assert rows(second) == rows(first)
    assert second.truncated == first.truncated
    assert len(work) == done, "nothing was tokenised again"
    assert entries() == 1


def test_the_cache_is_found_by_a_tokenizer_that_has_been_used_and_by_a_new_one(
    tiny_bert: Path, fresh_cache: Path
) -> None:
    """The key is the tokenizer's content, not its state: truncation set by an earlier call is no part of it."""
    from transformers import AutoTokenizer

    new = AutoTokenizer.from_pretrained(tiny_bert)
    used = AutoTokenizer.from_pretrained(tiny_bert)
    used(["a dog"], truncation=True, max_length=3)
    tokenised(SENTENCES, used, max_tokens=MAX_TOKENS)
    tokenised(SENTENCES, new, max_tokens=MAX_TOKENS)
    assert entries() == 1


def test_other_sentences_limits_and_vocabularies_have_entries_of_their_own(
    tokenizer: PreTrainedTokenizerBase, fresh_cache: Path
) -> None:
    from transformers import BertTokenizerFast

    other = BertTokenizerFast(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "dog": 5, "a": 6})
    tokenised(["a dog"], tokenizer, max_tokens=8)
    before = entries()
    shorter = tokenised(["a dog"], tokenizer, max_tokens=3)
    foreign = tokenised(["a dog"], other, max_tokens=8)
    reordered = tokenised(["dog", "a"], tokenizer, max_tokens=8)
    assert entries() >= before + 3
    assert len(shorter.row(0)) == 3
    assert foreign.row(0).tolist() == [2, 6, 5, 3]
    assert len(reordered) == 2


def test_lists_that_join_to_the_same_text_are_told_apart(
    tokenizer: PreTrainedTokenizerBase, fresh_cache: Path
) -> None:
    assert len(tokenised(["a dog", "runs"], tokenizer, max_tokens=8)) == 2
    assert len(tokenised(["a", "dog runs"], tokenizer, max_tokens=8).row(0)) == 3


@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy", "manifest.json"])
def test_a_damaged_entry_is_made_again(
    tokenizer: PreTrainedTokenizerBase, tiny_bert: Path, fresh_cache: Path, name: str
) -> None:
    from transformers import AutoTokenizer

    expected = rows(tokenised(SENTENCES, tokenizer, max_tokens=MAX_TOKENS))
    for entry in cache_folder("tokens").iterdir():
        data = (entry / name).read_bytes()
        (entry / name).write_bytes(data[: len(data) // 2])
    again = AutoTokenizer.from_pretrained(tiny_bert)
    assert rows(tokenised(SENTENCES, again, max_tokens=MAX_TOKENS)) == expected


def test_no_sentences_give_an_empty_stream(tokenizer: PreTrainedTokenizerBase, fresh_cache: Path) -> None:
    stream = tokenised([], tokenizer, max_tokens=8)
    assert len(stream) == 0
    assert stream.truncated == 0
