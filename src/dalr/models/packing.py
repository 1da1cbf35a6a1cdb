"""How is a forward computed over real tokens only? Row by row it gives what a padded forward gives.

At 32 tokens a third to a half of a batch is padding. Cutting it out must not change the batch, because the other
rows are the negatives. So the rows of one batch are laid end to end: every linear layer, norm and dropout works
on one (1, total) sequence of real tokens, and attention alone looks at sentences one by one (`packed`). On a CPU
rows of equal length form a dense group that needs no mask; on a GPU one flash-attention kernel takes all. An
architecture that computes its attention elsewhere (MPNet, DeBERTa: position biases of their own) gets a few
padded forwards over rows of similar length instead (`bucketed`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dalr.models.dropout import dropout_noise
from dalr.models.embedding import pad, pad_token_id, pooled, reads_padding, token_types, without_normalize
from dalr.models.first_token import last_layer_at
from dalr.models.prompts import excluded_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Layout = Literal["packed", "bucketed", "equal", "padded"]
"""`equal`: rows of one length together, for a model whose vectors depend on padding (FNet)."""

_ATTENTION = "dalr_packed"
_PRICE_OF_A_FORWARD = {"cpu": 64}
"""In tokens: what one more forward costs beside its tokens; `_PRICE_ELSEWHERE` on other devices."""
_PRICE_ELSEWHERE = 1_024
_SPECIAL_PER_ROW = 8
_PROBE_LENGTHS = (3, 7, 7, 2, 12)
"""Of rows of ordinary tokens; every special token stands in a further row, beside ordinary ones."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Rows of one batch end to end, by rising length."""

    order: Int[Tensor, " n"]
    """Row of the batch at each place."""
    row: Int[Tensor, " total"]
    """Place of the sentence that each token belongs to."""
    position: Int[Tensor, " total"]
    """Of the token in its sentence, from 0."""
    bounds: Int[Tensor, " n+1"]
    """First token of each place, and the end (int32)."""
    groups: tuple[tuple[int, int], ...]
    """(rows, length) of the runs of equally long rows, known without asking the device."""

    @property
    def longest(self) -> int:
        return self.groups[-1][1]


def sentence_vectors(
    encoder: SentenceTransformer,
    ids: Int[Tensor, "n l"],
    mask: Int[Tensor, "n l"],
    *,
    lengths: Sequence[int],
    layout: Layout,
) -> Float[Tensor, "n d"]:
    """h of each row, before any Normalize module. Rows are padded on the right.

    `lengths` are the rows' numbers of real tokens, at least 1, so that no device has to be asked for them.
    """
    if layout == "padded":
        return pooled(encoder, ids, mask)
    if layout in ("bucketed", "equal"):
        return _bucketed(encoder, ids, mask, lengths, equal=layout == "equal")
    return _packed(encoder, ids, pack(mask, lengths))


def best_layout(encoder: SentenceTransformer, *, dtype: torch.dtype | None = None) -> Layout:
    """`packed` where it works for this encoder on its device, in autocast to `dtype` if given; else `bucketed`, or
    `equal` where padding would change the vectors.

    It is tried out on a few rows rather than looked up by the name of the architecture.
    """
    backbone = encoder.transformers_model
    if backbone is None or not hasattr(encoder, "tokenizer"):
        return "padded"
    if reads_padding(encoder):
        return "equal"
    if not getattr(backbone, "_supports_attention_backend", False):
        return "bucketed"
    return "packed" if _packs(encoder, dtype) else "bucketed"


def pack(mask: Int[Tensor, "n l"], lengths: Sequence[int]) -> Packing:
    """Where each real token goes; nothing here waits for the device."""
    counts = mask.sum(1)
    order = counts.argsort(stable=True)
    counts = counts[order]
    bounds = F.pad(counts.cumsum(0), (1, 0))
    places, total = torch.arange(len(mask), device=mask.device), sum(lengths)
    row = torch.repeat_interleave(places, counts, output_size=total)
    position = torch.arange(total, device=mask.device) - bounds[row]
    groups = tuple((rows, length) for length, rows in sorted(Counter(lengths).items()))
    return Packing(order=order, row=row, position=position, bounds=bounds.int(), groups=groups)


def buckets(lengths: Sequence[int], *, price: int) -> list[tuple[int, int]]:
    """(rows, width) of the forwards, by rising width, that cost least: rows · width, and `price` tokens each.

    Exact, by dynamic programming over the distinct lengths.
    """
    distinct = sorted(Counter(lengths).items())
    best: list[tuple[int, list[tuple[int, int]]]] = [(0, [])]
    for end in range(1, len(distinct) + 1):
        width = distinct[end - 1][0]
        options = []
        for start in range(end):
            rows = sum(count for _, count in distinct[start:end])
            cost, cuts = best[start]
            options.append((cost + rows * width + price, [*cuts, (rows, width)]))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def _packed(encoder: SentenceTransformer, ids: Int[Tensor, "n l"], packing: Packing) -> Float[Tensor, "n d"]:
    backbone = encoder.transformers_model
    assert backbone is not None
    flat = ids[packing.order[packing.row], packing.position]
    types = token_types(encoder, flat[None])
    typed = {} if types is None else {"token_type_ids": types}
    with (
        _attention_by_sentence(backbone.config),
        last_layer_at(encoder, packing.bounds[:-1]) as first_tokens_only,
    ):
        states = backbone(
            input_ids=flat[None],
            position_ids=packing.position[None] + _first_position(backbone),
            packing=packing,
            return_dict=True,
            **typed,
        ).last_hidden_state
    places = torch.arange(len(ids) + 1, device=ids.device, dtype=torch.int32)
    features: dict[str, Any] = {
        "token_embeddings": states,
        "cu_seq_lens_q": places if first_tokens_only else packing.bounds,
        "seq_idx": packing.row[None],
    }
    if left_out := excluded_tokens(encoder):
        features["prompt_length"] = left_out
    for module in without_normalize(encoder)[1:]:
        features = module(features)
    return _in_the_batch_s_order(features["sentence_embedding"], packing.order)


def _bucketed(
    encoder: SentenceTransformer,
    ids: Int[Tensor, "n l"],
    mask: Int[Tensor, "n l"],
    lengths: Sequence[int],
    *,
    equal: bool = False,
) -> Float[Tensor, "n d"]:
    price = 0 if equal else _PRICE_OF_A_FORWARD.get(ids.device.type, _PRICE_ELSEWHERE)
    order = mask.sum(1).argsort(stable=True)
    parts, start = [], 0
    for rows, width in buckets(lengths, price=price):
        chosen = order[start : start + rows]
        parts.append(pooled(encoder, ids[chosen, :width], mask[chosen, :width]))
        start += rows
    return _in_the_batch_s_order(torch.cat(parts), order)


def _in_the_batch_s_order(sorted_rows: Float[Tensor, "n d"], order: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return sorted_rows[places]


def _first_position(backbone: nn.Module) -> int:
    """Position of a sentence's first token: RoBERTa and its kin count from behind the padding's."""
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0


@contextlib.contextmanager
def _attention_by_sentence(config: Any) -> Iterator[None]:
    """Only while a packed batch is in the model: nothing of it is seen by padded forwards, saving or export.

    transformers makes no mask for an attention function that has no mask function of its own.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(_ATTENTION, attend)
    before = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def attend(
    module: nn.Module,
    query: Float[Tensor, "1 h total e"],
    key: Float[Tensor, "1 h total e"],
    value: Float[Tensor, "1 h total e"],
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[Float[Tensor, "1 total h e"], None]:
    """Attention inside each sentence, as transformers calls it.

    `sliding_window` is w where a token sees those at a distance below w. A bias, a cap or sinks are refused.
    """
    refused = {"position_bias", "softcap", "s_aux"} & {name for name, given in unused.items() if given is not None}
    if refused or getattr(module, "is_causal", False) or attention_mask is not None or key.shape != query.shape:
        raise NotImplementedError(f"packed attention of {type(module).__name__} {sorted(refused)}")
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # (total, h, e), as they lie in memory
    flash = query.device.type == "cuda" and query.dtype in (torch.float16, torch.bfloat16)
    inside = _flash if flash else _dense_groups
    with torch.autocast(query.device.type, enabled=False):  # the fused kernels, too, keep the dtype they are given
        return inside(q, k, v, packing, dropout, scaling, sliding_window)[None], None


def _flash(
    query: Float[Tensor, "total h e"],
    key: Float[Tensor, "total h e"],
    value: Float[Tensor, "total h e"],
    packing: Packing,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Float[Tensor, "total h e"]:
    """The kernel below `scaled_dot_product_attention`; `torch.nn.attention.varlen` has it without dropout."""
    sides = {} if window is None else {"window_size_left": window - 1, "window_size_right": window - 1}
    out: Tensor = torch.ops.aten._flash_attention_forward(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        packing.bounds,
        packing.bounds,
        packing.longest,
        packing.longest,
        dropout,
        False,
        False,
        scale=scaling,
        **sides,
    )[0]
    return out


def _dense_groups(
    query: Float[Tensor, "total h e"],
    key: Float[Tensor, "total h e"],
    value: Float[Tensor, "total h e"],
    packing: Packing,
    dropout: float,
    scaling: float | None,
    window: int | None,
) -> Float[Tensor, "total h e"]:
    sizes = [rows * length for rows, length in packing.groups]
    parts = []
    for (rows, length), *three in zip(
        packing.groups, *(torch.split(x, sizes) for x in (query, key, value)), strict=True
    ):
        q, k, v = (x.unflatten(0, (rows, length)).transpose(1, 2) for x in three)
        near = _band(length, window, q.device) if window is not None and length > window else None
        out = _dense(q, k, v, near, dropout, scaling)
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _dense(
    query: Float[Tensor, "rows h l e"],
    key: Float[Tensor, "rows h l e"],
    value: Float[Tensor, "rows h l e"],
    near: Tensor | None,
    dropout: float,
    scaling: float | None,
) -> Float[Tensor, "rows h l e"]:
    """On a CPU the fused kernel knows no dropout, and its backward in bf16 takes 3 to 12 times the plain formula's.

    What stands in for dropout there is slower than the formula, too.
    """
    if query.device.type != "cpu" or (dropout == 0 and query.dtype == torch.float32):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=near, dropout_p=dropout, scale=scaling)
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if near is not None:
        scores = scores.masked_fill(~near, -torch.inf)
    weights = scores.softmax(-1)
    if dropout > 0:
        weights = weights * dropout_noise(weights.shape, dropout, weights.dtype)
    return weights @ value


def _band(length: int, window: int, device: torch.device) -> Tensor:
    place = torch.arange(length, device=device)
    return (place[:, None] - place[None]).abs() < window


def _probe(encoder: SentenceTransformer) -> list[list[int]]:
    """Rows to try: ordinary tokens in several lengths, and rows that hold each special token twice but padding's.

    Some models treat special tokens in ways of their own: ESM scales a row by its fraction of mask tokens.
    """
    tokenizer = encoder.tokenizer
    special = sorted(set(tokenizer.all_special_ids) - {tokenizer.pad_token_id})
    ordinary = sorted(set(range(min(len(tokenizer), 4_096))) - set(tokenizer.all_special_ids)) or special or [0]
    words = itertools.cycle(ordinary)
    rows = [list(itertools.islice(words, length)) for length in _PROBE_LENGTHS]
    for start in range(0, len(special), _SPECIAL_PER_ROW):
        several = special[start : start + _SPECIAL_PER_ROW]
        rows.append([number for token in several for number in (next(words), token, token)])
    return rows


def _packs(encoder: SentenceTransformer, dtype: torch.dtype | None) -> bool:
    """Whether packed rows get the vectors of padded ones, and a training step runs."""
    device, training = encoder.device, encoder.training
    rows = _probe(encoder)
    lengths = [len(row) for row in rows]
    ids, mask = (tensor.to(device) for tensor in pad(rows, pad_id=pad_token_id(encoder)))

    def vectors(layout: Layout) -> Tensor:
        return sentence_vectors(encoder, ids, mask, lengths=lengths, layout=layout).float()

    half = torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), half:
        try:
            with torch.no_grad():
                encoder.eval()
                padded = vectors("padded")
                difference = (vectors("packed") - padded).abs().max() / padded.abs().max()
            with torch.enable_grad():
                encoder.train()
                total, trained = vectors("packed").sum(), [p for p in encoder.parameters() if p.requires_grad]
                if trained:
                    torch.autograd.grad(total, trained, allow_unused=True)
        except Exception:  # noqa: BLE001 - any failure of a model's own code says that it cannot
            return False
        finally:
            encoder.train(training)
    return bool(difference < (1e-4 if dtype is None else 5e-2))
