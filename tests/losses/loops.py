"""The terms as naive loops over Python floats, written from the formulas of method.md and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from dalr.losses.inputs import Inputs

Row = list[float]
Matrix = list[Row]
CLAMP = 1 - 1e-7


def infonce(
    inputs: Inputs,
    *,
    temperature: float = 0.05,
    margin: float = 0.0,
    mask_same_image: bool = True,
    positives: str = "itself",
) -> float:
    """T1."""
    scores = sentence_scores(inputs, temperature, margin)
    if positives == "same_image":
        total = 0.0
        for row, same in zip(scores, inputs.same_image.tolist(), strict=True):  # type: ignore[union-attr]
            own = [j for j, shared in enumerate(same) if shared]
            total -= sum(math.log(softmax(row)[j]) for j in own) / len(own)
        return total / len(scores)
    left_out = [[False] * len(scores) for _ in scores]
    if mask_same_image:
        left_out = [[bool(cell) for cell in row] for row in inputs.same_image.tolist()]  # type: ignore[union-attr]
    return cross_entropy(scores, left_out)


def grounding(
    inputs: Inputs,
    *,
    temperature: float = 0.05,
    margin: float = 0.0,
    soft_margin: bool = True,
    clip_text_branch: bool = False,
    mask_same_image: bool = True,
    threshold_quantile: float | None = None,
    candidates: int | None = None,
) -> float:
    """T2: the image branch, and KDMCSE's branch against CLIP's text."""
    n = len(inputs.h_a)
    left_out = [[False] * n for _ in range(n)]
    if mask_same_image:
        left_out = [[bool(cell) for cell in row] for row in inputs.same_image.tolist()]  # type: ignore[union-attr]
    if threshold_quantile is not None:
        likeness = cosines(inputs.clip_text, inputs.image)
        level = quantile([likeness[i][j] for i in range(n) for j in range(n) if i != j], threshold_quantile)
        left_out = [[left_out[i][j] or likeness[i][j] > level for j in range(n)] for i in range(n)]

    def branch(
        anchors: Tensor | None, distance: Matrix, own: Sequence[int], left_out: Sequence[Sequence[bool]]
    ) -> float:
        total = 0.0
        for texts in (inputs.s_a, inputs.s_b):
            scores = cosines(texts, anchors)
            for i in range(n):
                for j in range(len(scores[i])):
                    if j != own[i]:
                        delta = distance[i][j] if soft_margin else 1.0
                        scores[i][j] = nearer(scores[i][j], delta * margin)
                    scores[i][j] /= temperature
            total += cross_entropy(scores, left_out, own)
        return total / 2

    itself = list(range(n))
    if candidates is not None:
        own = inputs.own_candidate.tolist()  # type: ignore[union-attr]
        distance = [[1 - v for v in row] for row in cosines(inputs.image, inputs.candidates)]
        among = [[False] * len(row) for row in distance]
        if threshold_quantile is not None:
            among = [[like > level for like in row] for row in cosines(inputs.clip_text, inputs.candidates)]
        value = branch(inputs.candidates_grounded, distance, own, among)
    else:
        distance = [[1 - v for v in row] for row in cosines(inputs.image, inputs.image)]
        value = branch(inputs.image_grounded, distance, itself, left_out)
    if clip_text_branch:
        likeness = cosines(inputs.clip_text, inputs.clip_text)
        distance = [[max(0.0, 1 - c) for c in row] for row in likeness]
        value += branch(inputs.clip_text_grounded, distance, itself, left_out)
    return value


def consistency(inputs: Inputs, *, margin: float = 0.2, classifier_weight: float = 0.0) -> float:
    """T3."""
    texts, images, other = rows(inputs.text_aligned), rows(inputs.image_aligned), inputs.unmatched.tolist()  # type: ignore[union-attr]
    n = len(texts)
    total = 0.0
    for i in range(n):
        total += 1 - cosine(texts[i], images[i])
        total += max(0.0, cosine(texts[i], images[other[i]]) - margin)
    logits = rows(inputs.match_logits)
    label_cost = 0.0
    for number, pair in enumerate(logits):
        label_cost -= log_softmax(pair)[1 if number < n else 0]
    return total / (2 * n) + classifier_weight * label_cost / (2 * n)


def cross_modal_alignment(
    inputs: Inputs,
    *,
    text_target_temperature: float = 0.2,
    image_target_temperature: float = 0.1,
    text_temperature: float | None = None,
    image_temperature: float | None = None,
    soft_label_mix: float = 0.0,
    target: str = "within_modality",
) -> float:
    """T4, in the grounding space."""
    first, second = cosines(inputs.s_a, inputs.image_grounded), cosines(inputs.s_b, inputs.image_grounded)
    n = len(first)
    match = cosines(inputs.text_aligned, inputs.image_aligned)
    likeness = [[(first[i][j] + second[i][j]) / 2 for j in range(n)] for i in range(n)]

    def direction(target: Matrix, softer: Matrix, student: Matrix, tau_q: float, tau_p: float) -> float:
        q = [
            [
                (1 - soft_label_mix) * hard + soft_label_mix * soft
                for hard, soft in zip(softmax(over(target[i], tau_q)), softmax(over(softer[i], tau_q)), strict=True)
            ]
            for i in range(n)
        ]
        return kl(q, [softmax(over(student[i], tau_p)) for i in range(n)])

    across = cosines(inputs.clip_text, inputs.image) if target == "clip" else []
    to_image = direction(
        across or teacher_cosines(inputs),
        match,
        likeness,
        text_target_temperature,
        text_temperature or text_target_temperature,
    )
    to_text = direction(
        transposed(across) if across else cosines(inputs.image, inputs.image),
        transposed(match),
        transposed(likeness),
        image_target_temperature,
        image_temperature or image_target_temperature,
    )
    return (to_image + to_text) / 2


def list_mle(
    inputs: Inputs,
    *,
    temperature: float = 0.05,
    include_self: bool = False,
    reduction: str = "mean",
    epsilon: float = 0.0,
) -> float:
    """T5, ListMLE."""
    scores, relevance, ties = (
        sentence_scores(inputs, temperature),
        teacher_cosines(inputs),
        inputs.tie_order.tolist(),
    )
    n = len(scores)
    total = 0.0
    for i in range(n):
        others = [j for j in range(n) if include_self or j != i]
        order = sorted(others, key=lambda j: (-relevance[i][j], ties.index(j)))
        ranked = [scores[i][j] for j in order]
        top = max(ranked)
        cost = 0.0
        for r in range(len(ranked)):
            mass = sum(math.exp(score - top) for score in ranked[r:])
            cost += math.log(mass + epsilon) - (ranked[r] - top)
        total += cost / len(ranked) if reduction == "mean" else cost
    return total / n


def list_net(inputs: Inputs, *, temperature: float = 0.05, teacher_temperature: float = 0.05) -> float:
    """T5, ListNet."""
    scores, relevance = sentence_scores(inputs, temperature), teacher_cosines(inputs)
    total = 0.0
    for i, (student, teacher) in enumerate(zip(scores, relevance, strict=True)):
        wanted = softmax(over(without(teacher, i), teacher_temperature))
        total -= sum(q * p for q, p in zip(wanted, log_softmax(without(student, i)), strict=True))
    return total / len(scores)


def consistency_js(inputs: Inputs, *, temperature: float = 0.05) -> float:
    """RankCSE's consistency: the Jensen-Shannon divergence of the two directions' top-1 distributions."""
    scores = sentence_scores(inputs, temperature)
    backwards = transposed(scores)
    total = 0.0
    for i in range(len(scores)):
        p, q = softmax(without(scores[i], i)), softmax(without(backwards[i], i))
        middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
        total += (kl([p], [middle]) + kl([q], [middle])) / 2
    return total / len(scores)


def intra_modal_alignment(
    inputs: Inputs, *, target_temperature: float = 0.2, temperature: float | None = None
) -> float:
    """T6."""
    target = [softmax(over(row, target_temperature)) for row in teacher_cosines(inputs)]
    student = [softmax(row) for row in sentence_scores(inputs, temperature or target_temperature)]
    return kl(target, student)


def global_to_local(inputs: Inputs, *, temperature: float = 0.07) -> float:
    """T7: each teacher's own contrast, averaged by α."""
    sentences = rows(inputs.z_a)
    value = 0.0
    for teacher in inputs.teacher_tokens:
        states, real = teacher.states.double().tolist(), teacher.mask.tolist()
        per_sentence = []
        for i, sentence in enumerate(sentences):

            def score(j: int, token: int, sentence: Row = sentence, states: Any = states) -> float:
                return cosine(sentence, states[j][token]) / temperature

            foreign = [
                score(j, token)
                for j in range(len(sentences))
                for token in range(len(real[j]))
                if j != i and real[j][token]
            ]
            costs = []
            for token in range(len(real[i])):
                if real[i][token]:
                    own = score(i, token)
                    costs.append(log_sum_exp([own, *foreign]) - own)
            if costs:
                per_sentence.append(sum(costs) / len(costs))
        value += teacher.weight * sum(per_sentence) / len(per_sentence)
    return value


LOOPS: Mapping[str, Callable[..., float]] = {
    "infonce": infonce,
    "grounding": grounding,
    "consistency": consistency,
    "cross_modal_alignment": cross_modal_alignment,
    "list_mle": list_mle,
    "list_net": list_net,
    "consistency_js": consistency_js,
    "intra_modal_alignment": intra_modal_alignment,
    "global_to_local": global_to_local,
}


# What the formulas are made of


def teacher_cosines(inputs: Inputs) -> Matrix:
    """T = Σ_k α_k cos(e^(k)_i, e^(k)_j)."""
    n = len(inputs.h_a)
    mixed = [[0.0] * n for _ in range(n)]
    for weight, vectors in zip(inputs.teacher_weights, inputs.teachers, strict=True):
        likeness = cosines(vectors, vectors)
        mixed = [[mixed[i][j] + weight * likeness[i][j] for j in range(n)] for i in range(n)]
    return mixed


def sentence_scores(inputs: Inputs, temperature: float, margin: float = 0.0) -> Matrix:
    """A_m(cos(z^a_i, z^b_j)) / τ."""
    likeness = cosines(inputs.z_a, inputs.z_b)
    n = len(likeness)
    return [
        [(likeness[i][j] if i == j else nearer(likeness[i][j], margin)) / temperature for j in range(n)]
        for i in range(n)
    ]


def nearer(cosine: float, angle: float) -> float:
    """cos(max(θ − angle, 0)) with θ = arccos of the cosine, clamped."""
    if angle == 0:
        return cosine
    return math.cos(max(math.acos(min(max(cosine, -CLAMP), CLAMP)) - angle, 0.0))


def cross_entropy(
    scores: Matrix, left_out: Sequence[Sequence[bool]] | None = None, own: Sequence[int] | None = None
) -> float:
    """mean_i of −log softmax_j(S_ij) at j = own_i (i itself), over the negatives that are not left out."""
    total = 0.0
    for i, row in enumerate(scores):
        target = i if own is None else own[i]
        kept = [s for j, s in enumerate(row) if j == target or left_out is None or not left_out[i][j]]
        total += log_sum_exp(kept) - row[target]
    return total / len(scores)


def kl(target: Matrix, student: Matrix) -> float:
    """(1/n) Σ_i Σ_j Q_ij (log Q_ij − log P_ij)."""
    total = 0.0
    for q_row, p_row in zip(target, student, strict=True):
        for q, p in zip(q_row, p_row, strict=True):
            if q > 0:
                total += q * (math.log(q) - math.log(p))
    return total / len(target)


def rows(tensor: Tensor | None) -> Matrix:
    assert tensor is not None
    values: Matrix = tensor.double().tolist()
    return values


def cosines(x: Tensor | None, y: Tensor | None) -> Matrix:
    return [[cosine(a, b) for b in rows(y)] for a in rows(x)]


def cosine(x: Row, y: Row) -> float:
    lengths = math.hypot(*x) * math.hypot(*y)
    return sum(a * b for a, b in zip(x, y, strict=True)) / lengths if lengths else 0.0


def softmax(row: Row) -> Row:
    return [math.exp(value) for value in log_softmax(row)]


def log_softmax(row: Row) -> Row:
    total = log_sum_exp(row)
    return [value - total for value in row]


def log_sum_exp(row: Row) -> float:
    top = max(row)
    return top + math.log(sum(math.exp(value - top) for value in row))


def over(row: Row, temperature: float) -> Row:
    return [value / temperature for value in row]


def without(row: Row, index: int) -> Row:
    return row[:index] + row[index + 1 :]


def transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def quantile(values: Row, share: float) -> float:
    """Linear between the two nearest order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
