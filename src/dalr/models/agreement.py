"""Do a tokenizer and a model fit each other? Checked when they are loaded.

Otherwise the mistake shows at the first rare token, or at the first long text, as an index error from inside a
library. What the files say is compared without torch, for `dalr check`; what only the loaded model knows is tried
out in one forward at the longest input that it accepts.
A model that states a longer input than it has positions is used up to those, and a note says so.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dalr.errors import ConfigError, ModelFileError, Problem
from dalr.io.paths import regular
from dalr.models.limits import UNLIMITED, longest_input
from dalr.models.module_list import module_folders
from dalr.models.reference import token_positions

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_TRIED = 1_024
"""The longest input that is tried out; beyond it only the positions are compared."""
_RESIZE = "the tokenizer is of another model, or tokens were added without resize_token_embeddings"
_log = logging.getLogger(__name__)


def require_files_agree(folder: Path, where: str) -> None:
    """Compare what tokenizer.json, config.json and the stated lengths say, as far as they are there.

    Raises:
        ModelFileError: every disagreement.
    """
    problems = [
        Problem(where=where, what=what) for place in module_folders(folder, where) for what in _disagreements(place)
    ]
    if problems:
        raise ModelFileError(problems)


def settle_limit(encoder: SentenceTransformer, wanted: int | None, where: str) -> None:
    """Set the longest input: `wanted`, or the model's own as far as it has positions; a note says what was cut.

    Raises:
        ConfigError: `wanted` is more than the model has positions.
        ModelFileError: the model's own limit is not a length.
    """
    backbone = encoder.transformers_model
    if backbone is None:
        return
    stated = (token_positions(backbone.config.to_dict()), _positions_in_table(backbone))
    positions = min((number for number in stated if number is not None), default=None)
    if wanted is not None:
        if positions is not None and wanted > positions:
            what = f"max_tokens is {wanted}, but the model has {positions} positions; lower it"
            raise ConfigError(Problem(where=where, what=what))
        encoder.max_seq_length = wanted
        return
    own = encoder.max_seq_length
    _require_length(own, encoder, where)
    if positions is None or (own is not None and own <= positions):
        return
    if own is not None and own < UNLIMITED:
        _log.warning(
            "note: %s: its longest input is stated as %s tokens, but it has %s positions and is used up to those",
            where,
            own,
            positions,
        )
    encoder.max_seq_length = positions


def require_agreement(encoder: SentenceTransformer, where: str) -> None:
    """Compare the tokenizer with the loaded model, and run one forward at the longest input.

    Raises:
        ModelFileError: ids without a row in the embedding, an empty vocabulary, or an input that fails.
    """
    backbone = encoder.transformers_model
    if backbone is None:
        return
    vocabulary = encoder.tokenizer.get_vocab()
    rows = int(getattr(backbone.get_input_embeddings(), "num_embeddings", 0))
    if what := _vocabulary_problem(vocabulary, rows or None, set(encoder.tokenizer.all_special_tokens)):
        raise ModelFileError(Problem(where=where, what=what))
    limit = longest_input(encoder)
    _try_longest(encoder, min(limit or _TRIED, _TRIED), sorted(vocabulary.values()), where)


def _try_longest(encoder: SentenceTransformer, length: int, known: list[int], where: str) -> None:
    import torch

    from dalr.models.embedding import pooled

    special = set(encoder.tokenizer.all_special_ids)
    ordinary = [number for number in known if number not in special]
    ids = [*sorted(special & set(known)), *ordinary, known[-1]][:length]
    row = torch.tensor([(ids + [ordinary[-1]] * length)[:length]], device=encoder.device)
    try:
        with torch.inference_mode():
            pooled(encoder, row, torch.ones_like(row))
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or repr(error)
        what = f"fails at an input of {length} tokens, which it states to accept: {reason:.200}"
        raise ModelFileError(Problem(where=where, what=what)) from error


def _positions_in_table(backbone: Any) -> int | None:
    """Rows of a learned table of positions, less those that lie before the first token's."""
    from torch import nn

    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and type(module) is nn.Embedding:
            padding = module.padding_idx
            return module.num_embeddings - (0 if padding is None else padding + 1)
    return None


def _require_length(own: Any, encoder: SentenceTransformer, where: str) -> None:
    around = encoder.tokenizer.num_special_tokens_to_add()
    if own is not None and (isinstance(own, bool) or not isinstance(own, int | float) or own <= around):
        what = f"its longest input is stated as {own!r} tokens, expected more than its {around} special tokens"
        advice = "set max_seq_length in sentence_bert_config.json or model_max_length in tokenizer_config.json"
        raise ModelFileError(Problem(where=where, what=f"{what}: {advice}"))


def _disagreements(folder: Path) -> Iterator[str]:
    config = _object(folder / "config.json")
    for name, key in (
        ("tokenizer_config.json", "model_max_length"),
        ("sentence_bert_config.json", "max_seq_length"),
    ):
        stated = _object(folder / name).get(key)
        if stated is not None and (isinstance(stated, bool) or not isinstance(stated, int | float) or stated < 1):
            yield f"{folder / name}: {key} is {stated!r:.80}, expected a number of tokens"
    tokenizer = _object(folder / "tokenizer.json")
    if not tokenizer:
        return
    vocabulary, special = _vocabulary(tokenizer)
    rows = config.get("vocab_size")
    if vocabulary is not None and (
        what := _vocabulary_problem(vocabulary, rows if isinstance(rows, int) else None, special)
    ):
        yield f"{folder / 'tokenizer.json'}: {what}"


def _vocabulary_problem(vocabulary: dict[str, int], rows: int | None, special: set[str]) -> str | None:
    if not set(vocabulary) - special:
        return "the tokenizer's vocabulary is empty: it would read nothing of any sentence; copy the whole folder"
    beyond = sorted((number, piece) for piece, number in vocabulary.items() if rows is not None and number >= rows)
    if not beyond:
        return None
    number, piece = beyond[0]
    return (
        f"{len(beyond)} of the tokenizer's {len(vocabulary)} tokens have no row in the embedding of {rows}, "
        f"such as {piece!r:.60} (id {number}): {_RESIZE}"
    )


def _vocabulary(tokenizer: dict[str, Any]) -> tuple[dict[str, int] | None, set[str]]:
    """Pieces and ids of a tokenizer.json, and which are special; None where its kind is not known."""
    model, added = tokenizer.get("model"), tokenizer.get("added_tokens") or []
    pieces = model.get("vocab") if isinstance(model, dict) else None
    try:
        match pieces:
            case dict():
                found = {str(piece): int(number) for piece, number in pieces.items()}
            case list():
                found = {str(entry[0]): number for number, entry in enumerate(pieces)}
            case _:
                return None, set()
        found |= {str(each["content"]): int(each["id"]) for each in added}
        special = {str(each["content"]) for each in added if each.get("special")}
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        return None, set()
    return found, special


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where the file is missing or damaged, which loading reports."""
    try:
        found = json.loads(regular(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
