"""What is the arithmetic of the objective? Pure functions of tensors, one per formula.

The recipe-facing classes (`contrastive`, `consistency`, `alignment`, `ranking`, `token_level`) hold the
hyper-parameters and call these; keeping the two apart lets a recipe be checked without importing torch, and lets
every formula be compared with a naive loop. Everything is computed in the dtype it is given (training gives
fp32) and nothing is changed in place. Shapes are in the signatures; n rows, l tokens, d features.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

MarginForm = Literal["continuous", "jump"]

_ARCCOS_LIMIT = 1 - 1e-7
_NORM_FLOOR = 1e-8


def cosine_matrix(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """cos(x_i, y_j). A zero vector has cosine 0 with everything."""
    return normalize(x) @ normalize(y).T


def normalize(x: Float[Tensor, "*batch d"], dim: int = -1) -> Float[Tensor, "*batch d"]:
    """x with length 1 along `dim`; 0 stays 0."""
    return F.normalize(x, dim=dim, eps=_NORM_FLOOR)


def angular_margin(
    cosines: Float[Tensor, "n m"],
    *,
    margin: float,
    scale: Float[Tensor, "n m"] | None = None,
    form: MarginForm = "continuous",
    own: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "n m"]:
    """A_m: negatives brought closer by an angle, so that they repel more (KDMCSE; DALR eq. 2).

    A row's positive is its column `own`, the diagonal's if not given; all others are negatives. With θ = arccos(c)
    and Δ = `scale` (1 without), a negative becomes cos(max(θ − Δ·m, 0)). The released codes' `jump` form is
    cos(θ − Δ·m) where θ > m, else c: discontinuous and non-monotone at θ = m, kept for parity. The gradient of
    arccos is infinite at ±1, so cosines are clamped just inside.
    """
    if margin == 0:
        return cosines
    theta = torch.arccos(cosines.clamp(-_ARCCOS_LIMIT, _ARCCOS_LIMIT))
    shift = margin if scale is None else margin * scale
    if form == "continuous":
        moved = torch.cos((theta - shift).clamp_min(0))
    else:
        moved = torch.where(theta > margin, torch.cos(theta - shift), cosines)
    return torch.where(_diagonal(cosines) if own is None else _at(own, cosines), cosines, moved)


def own_cross_entropy(
    logits: Float[Tensor, "n m"],
    *,
    own: Int[Tensor, " n"] | None = None,
    excluded: Bool[Tensor, "n m"] | None = None,
) -> Float[Tensor, ""]:
    """CE(S) = mean_i −log softmax_j(S_ij) at j = own_i (i itself without `own`).

    `excluded` negatives take no part, the own column always does.
    """
    targets = torch.arange(len(logits), device=logits.device) if own is None else own
    if excluded is not None:
        logits = logits.masked_fill(excluded & ~_at(targets, logits), -math.inf)
    return F.cross_entropy(logits, targets)


def shared_cross_entropy(logits: Float[Tensor, "n n"], *, positive: Bool[Tensor, "n n"]) -> Float[Tensor, ""]:
    """mean_i mean_{j ∈ P(i)} −log softmax_j(S_ij), P(i) the true columns of row i, at least one of them."""
    share = positive.to(logits.dtype) / positive.sum(1, keepdim=True)
    return F.cross_entropy(logits, share)


def distribution_divergence(target: Float[Tensor, "n m"], student: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """KL(Q‖P) = (1/n) Σ_i Σ_j Q_ij (log Q_ij − log P_ij), both given as log-probabilities."""
    return F.kl_div(student, target, log_target=True, reduction="batchmean")


def mix_distributions(
    first: Float[Tensor, "n m"], second: Float[Tensor, "n m"], *, share: float
) -> Float[Tensor, "n m"]:
    """log((1 − share)·exp(first) + share·exp(second)) of two log-distributions."""
    if share == 0:
        return first
    if share == 1:
        return second
    return torch.logaddexp(first + math.log1p(-share), second + math.log(share))


def off_diagonal(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n-1"]:
    """The matrix without its diagonal, the order of each row kept.

    After the first element, every (n + 1)th is on the diagonal; indexing by a mask would wait for the device.
    """
    n = len(matrix)
    return matrix.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


def list_mle(
    student: Float[Tensor, "n m"],
    ranks: Int[Tensor, "n k"],
    *,
    mean_over_list: bool,
    epsilon: float = 0.0,
) -> Float[Tensor, ""]:
    """ListMLE (RankCSE; Xia et al. 2008): (1/n) Σ_i Σ_r [logsumexp_{k ≥ r} S_i,π(k) − S_i,π(r)].

    `ranks` is π: the columns that are on each row's list, best first. `epsilon` is the release's: with m the
    maximum of the list, log(Σ exp(S − m) + ε) − (S − m), which differs by up to 6 % when scores are large.
    """
    ranked = student.gather(1, ranks)
    if epsilon > 0:
        ranked = ranked - ranked.max(dim=1, keepdim=True).values
        tails = (ranked.exp().flip(1).cumsum(1).flip(1) + epsilon).log()
    else:
        tails = ranked.flip(1).logcumsumexp(1).flip(1)
    per_row = (tails - ranked).sum(1)
    if mean_over_list:
        per_row = per_row / ranks.shape[1]
    return per_row.mean()


def ranks_of(
    relevance: Float[Tensor, "n n"], *, tie_order: Int[Tensor, " n"], include_self: bool
) -> Int[Tensor, "n m"]:
    """Columns of each row by falling relevance; ties in the order of `tie_order`; self left out or kept."""
    if not include_self:
        relevance = relevance.masked_fill(_diagonal(relevance), -math.inf)
    shuffled = relevance[:, tie_order]
    ranks = tie_order[shuffled.argsort(dim=1, descending=True, stable=True)]
    return ranks if include_self else ranks[:, :-1]


def list_net(student: Float[Tensor, "n m"], target: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """ListNet (RankCSE; Cao et al. 2007): −(1/n) Σ_i Σ_j softmax(R)_ij · log softmax(S)_ij, of scores."""
    return -(target.softmax(1) * student.log_softmax(1)).sum(1).mean()


def jensen_shannon(first: Float[Tensor, "n m"], second: Float[Tensor, "n m"]) -> Float[Tensor, ""]:
    """Mean over rows of JS(p, q) in [0, ln 2], of two scores whose softmax are p and q; JS(p, p) = 0."""
    p, q = first.log_softmax(1), second.log_softmax(1)
    middle = torch.logaddexp(p, q) - math.log(2)
    halves = F.kl_div(middle, p, log_target=True, reduction="none") + F.kl_div(
        middle, q, log_target=True, reduction="none"
    )
    return halves.sum(1).mean() / 2


def cosine_embedding(
    text: Float[Tensor, "n d"],
    matched: Float[Tensor, "n d"],
    unmatched: Float[Tensor, "n d"],
    *,
    margin: float,
) -> Float[Tensor, ""]:
    """Mean over 2n pairs of 1 − cos(text, matched) and max(0, cos(text, unmatched) − margin)."""
    near = 1 - (normalize(text) * normalize(matched)).sum(1)
    far = ((normalize(text) * normalize(unmatched)).sum(1) - margin).clamp_min(0)
    return torch.cat([near, far]).mean()


def token_contrast(
    sentences: Float[Tensor, "n d"],
    tokens: Float[Tensor, "n l d"],
    mask: Bool[Tensor, "n l"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """InfoNCE of each sentence vector: every real token of its own sentence against all real tokens of others.

    All tokens of a row share the row's negatives, so their log-sum-exp is taken once: memory O(n²·l). Mean over
    the real tokens of a sentence, then over the sentences that have any.
    """
    scores = torch.einsum("id,jld->ijl", sentences, tokens) / temperature
    own = _diagonal(scores[:, :, 0])
    allowed = mask[None] & ~own[:, :, None]
    negatives = scores.masked_fill(~allowed, -math.inf).flatten(1).logsumexp(1)
    positives = scores.diagonal().T
    losses = torch.logaddexp(positives, negatives[:, None]) - positives
    counts = mask.sum(1)
    per_sentence = losses.masked_fill(~mask, 0).sum(1) / counts.clamp_min(1)
    return per_sentence.sum() / (counts > 0).sum().clamp_min(1)


def _at(own: Int[Tensor, " n"], matrix: Float[Tensor, "n m"]) -> Bool[Tensor, "n m"]:
    """True at (i, own_i)."""
    return own[:, None] == torch.arange(matrix.shape[1], device=matrix.device)


def _diagonal(matrix: Tensor) -> Bool[Tensor, "n n"]:
    return torch.eye(len(matrix), dtype=torch.bool, device=matrix.device)
