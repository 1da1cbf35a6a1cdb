"""Sentences of megabytes are cut before they are tokenised, and their tokens stay as they are."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bounds import bounded, limited_memory
from dalr.data.long_text import MOST, WHOLE, in_batches, within_tokens
from dalr.data.rows import comparable
from dalr.data.tokens import tokenised

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LINE = "the dog runs and a cat sleeps beside rivers of unbelievably cold water 日本語 naïve Straße 😀 x1 don't"
WORDS = LINE.split(" ")
CORPUS = [" ".join(random.Random(seed).choices(WORDS, k=12)) for seed in range(200)]


def word_pieces(tokenizers: Any) -> tuple[Any, Any]:
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return made, tokenizers.trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"])


def byte_pairs(tokenizers: Any) -> tuple[Any, Any]:
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    return made, tokenizers.trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet)


def unigram(tokenizers: Any, split: bool = True) -> tuple[Any, Any]:
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(split=split)
    return made, tokenizers.trainers.UnigramTrainer(vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>")


def unigram_of_whole_sentences(tokenizers: Any) -> tuple[Any, Any]:
    return unigram(tokenizers, split=False)


def words(tokenizers: Any) -> tuple[Any, Any]:
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return made, tokenizers.trainers.WordLevelTrainer(special_tokens=["[UNK]"])


KINDS: list[Callable[[Any], tuple[Any, Any]]] = [
    word_pieces,
    byte_pairs,
    unigram,
    unigram_of_whole_sentences,
    words,
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    made, trainer = request.param(tokenizers)
    trainer.show_progress = False
    made.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=64, unk_token=None)


def long_texts() -> list[str]:
    random_ = random.Random(1)
    texts = [" ".join(random_.choices(WORDS, k=3_000)) for _ in range(8)]
    texts += ["".join(random_.choices(WORDS, k=3_000)) for _ in range(8)]  # no white space at all
    texts += [
        "  \t".join(random_.choices(WORDS, k=2_000)),
        "日" * 9_000,
        "x" * 9_000 + " the dog " * 500,
        "ab" * 9_000,
    ]
    return [
        *texts,
        " " * 5_000 + " the dog" * 900,
        "a\u0301" * 4_000,
        "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 900,
    ]


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_tokens_that_are_kept_are_those_of_the_whole(tokenizer: PreTrainedTokenizerBase, side: str) -> None:
    tokenizer.truncation_side = side
    for limit in (3, 32, 64):
        for text in long_texts():
            part = within_tokens(text, tokenizer, limit, whole=300)
            wanted = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
            assert tokenizer(part, truncation=True, max_length=limit)["input_ids"] == wanted, ascii(text[:40])
    tokenizer.truncation_side = "right"


def test_most_of_a_long_sentence_is_not_tokenised(tokenizer: PreTrainedTokenizerBase) -> None:
    text = " the dog" * 50_000
    assert len(within_tokens(text, tokenizer, 32)) <= WHOLE
    assert text.startswith(within_tokens(text, tokenizer, 32))


def test_what_is_not_long_is_left_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in ("", "a dog", "x" * WHOLE, "the dog " * (WHOLE // 8)):
        assert within_tokens(text, tokenizer, 3) is text


@pytest.mark.parametrize(
    "text", ["x" * 20_000_000, "ab " * 7_000_000, " " * 20_000_000, "日本" * 10_000_000, "." * 20_000_000]
)
def test_twenty_megabytes_on_one_line_stay_within_the_bounds(tiny_bert: Path, fresh_cache: Path, text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with limited_memory(), bounded():
        stream = tokenised(["a dog", text], tokenizer, max_tokens=9)
    assert stream.truncated == 1, "a sentence that is cut in characters counts as cut"
    assert len(stream.row(1)) <= 9


def test_a_sentence_without_end_is_read_up_to_a_bound(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(within_tokens(" " * (3 * MOST), tokenizer, 32)) <= MOST


def test_batches_hold_few_long_sentences_and_many_short_ones() -> None:
    sentences = ["x" * 600_000, "y" * 600_000, *"abcde", "z" * 2_000_000, "w"]
    batches = list(in_batches(sentences, 3))
    assert [sentence for batch in batches for sentence in batch] == sentences
    assert list(map(len, batches)) == [1, 3, 3, 1, 1]


def test_a_long_sentence_is_compared_as_a_short_one() -> None:
    text = "The  Dog\u3000runs\x1cÉ " * 10_000
    assert comparable(text) == " ".join(["the dog runs é"] * 10_000)
    assert comparable(text[:80]) == " ".join(text[:80].lower().split())
    with bounded():
        comparable("ab " * 7_000_000)
