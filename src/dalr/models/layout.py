"""What do the names in a published checkpoint mean? The encoder's, a head's, or unknown.

SimCSE and its relatives save a class of their own: the encoder under a prefix (`bert.`, or `lang_model.bert.` where
a whole objective was saved) and trained heads beside it. Libraries strip a prefix they know and call the rest a
warning; here every name is accounted for, because a layer that is silently left out is a model nobody published.
The prefix is the one, made of known wrappers, under which most of the architecture's own names stand.

`pooler.` has two meanings. Inside the encoder (`bert.pooler.`) it is BERT's next-sentence layer, which no method
reads. Beside the encoder (MCSE and those built on it), or in a checkpoint that SimCSE's converter has made, it is
the trained sentence head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dalr.errors import ModelFileError, Problem

_WRAPPERS = frozenset({"module", "model", "lm_model", "lang_model", "encoder"})
"""What data-parallel training and the objectives of MCSE and its relatives wrap around a text encoder."""
_POOLER = "pooler."
_BUFFERS = (".position_ids", ".token_type_ids")
_HEADS = ("mlp.dense", "pooler.dense")
"""Where tanh(W h + b) stands: SimCSE and RankCSE, then MCSE, KDMCSE and DALR."""
_OWN_POOLER = "the encoder's pooler from its pretraining, which none of the methods reads"
_ROW_NUMBERS = "row numbers, which are computed"
GROUPS: Mapping[str, str] = {
    "mlp": "sentence head",
    "pooler": "sentence head, under the pooler's name",
    "grounding": "grounding head of the text",
    "visn_model": "grounding heads of the images",
    "proj": "projection of a training objective",
    "lm_head": "language-model head",
    "cls": "heads of the pretraining",
    "discriminator": "DiffCSE's replaced-token detector",
    "generator": "DiffCSE's generator",
    "electra_head": "DiffCSE's replaced-token detector",
}
"""First part of a name beside the encoder -> what stands there."""


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Parameters that are not taken, together because they mean one thing."""

    group: str
    what: str
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Every name of a checkpoint, accounted for."""

    prefix: str
    encoder: Mapping[str, str]
    """Name in the architecture -> name in the checkpoint; without pooler."""
    head: tuple[str, str] | None
    """Names in the checkpoint of W and b of the sentence head, if it is one affine map."""
    dropped: tuple[Dropped, ...]
    """Known groups, the head among them."""
    unknown: tuple[Dropped, ...]
    missing: tuple[str, ...]
    """Names in the architecture that the checkpoint lacks."""


def read_layout(names: Collection[str], *, expected: Collection[str], base: str, where: str) -> Layout:
    """Account for the `names` of a checkpoint.

    Args:
        expected: the parameter names of the architecture that `config.json` states, without prefix.
        base: the architecture's own prefix, such as `bert`.

    Raises:
        ModelFileError: no prefix, or more than one, under which the encoder stands.
    """
    wanted = {name for name in expected if not name.startswith(_POOLER)}
    prefix = _prefix(names, wanted, base, where)
    encoder = {name: prefix + name for name in sorted(wanted) if prefix + name in names}
    rest = sorted(set(names) - set(encoder.values()))
    dropped: dict[tuple[str, str], list[str]] = {}
    unknown: dict[tuple[str, str], list[str]] = {}
    for name in rest:
        group, what = _group(name, prefix, base)
        (unknown if what is None else dropped).setdefault((group, what or "unknown"), []).append(name)
    return Layout(
        prefix=prefix,
        encoder=encoder,
        head=_head(rest, prefix, base),
        dropped=_as_groups(dropped),
        unknown=_as_groups(unknown),
        missing=tuple(sorted(wanted - set(encoder))),
    )


def _prefix(names: Collection[str], wanted: Collection[str], base: str, where: str) -> str:
    """The prefix under which most wanted names stand."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for number in range(len(parts)):
            if ".".join(parts[number:]) in wanted and set(parts[:number]) <= _WRAPPERS | {base}:
                counts["".join(f"{part}." for part in parts[:number])] += 1
    if not counts:
        what = (
            f"none of its {len(names)} names is a parameter of the architecture in config.json: expected such as "
            f"{_some(sorted(wanted))}, found {_some(sorted(names))}; is config.json that of this checkpoint?"
        )
        raise ModelFileError(Problem(where=where, what=what))
    most = max(counts.values())
    best = sorted(prefix for prefix, count in counts.items() if count == most)
    if len(best) > 1:
        what = f"{len(best)} encoders in it, under {', '.join(map(repr, best))}; expected one"
        raise ModelFileError(Problem(where=where, what=what))
    return best[0]


def _group(name: str, prefix: str, base: str) -> tuple[str, str | None]:
    """What a name beside the encoder's own belongs to; None where that is not known."""
    if name.endswith(_BUFFERS):
        return name.rpartition(".")[2], _ROW_NUMBERS
    if _is_own_pooler(name, prefix, base):
        return f"{prefix}{_POOLER}".rstrip("."), _OWN_POOLER
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return parts[0], GROUPS.get(parts[0])


def _is_own_pooler(name: str, prefix: str, base: str) -> bool:
    return name.startswith(f"{prefix}{_POOLER}") and prefix.endswith(f"{base}.")


def _head(rest: Collection[str], prefix: str, base: str) -> tuple[str, str] | None:
    beside = prefix.removesuffix(f"{base}.")
    for head in _HEADS:
        weight, bias = f"{beside}{head}.weight", f"{beside}{head}.bias"
        if weight in rest and bias in rest and not _is_own_pooler(weight, prefix, base):
            return weight, bias
    return None


def _as_groups(found: Mapping[tuple[str, str], list[str]]) -> tuple[Dropped, ...]:
    return tuple(Dropped(group=group, what=what, names=tuple(names)) for (group, what), names in found.items())


def _some(names: Collection[str]) -> str:
    shown = list(names)[:3]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")
