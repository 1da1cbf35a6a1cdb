"""Which prompt does a model want before every sentence, such as E5's `query: `?

A SentenceTransformer names its prompts in `config_sentence_transformers.json`, and may name one of them as its
default, which its own `encode` puts before every sentence. So do we, in training as well as in scoring: a model
without its prompt is another model. The prompt in use is the encoder's own default, so that an export keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dalr.errors import ConfigError, ModelFileError, Problem, did_you_mean
from dalr.io.paths import is_file
from dalr.models.json_object import json_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sentence_transformers import SentenceTransformer

_FILE = "config_sentence_transformers.json"
_BUILT_IN = ("query", "document")
"""Names that sentence-transformers gives every model, with an empty prompt where the model has none."""
_CHOSEN = "dalr"
"""The name under which an export keeps a prompt that was given as text."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What a model's files say of prompts."""

    texts: Mapping[str, str]
    default: str | None
    """The name of the default."""

    def text(self, wanted: str | None, where: str) -> str:
        """The prompt that is used: `wanted` is a name or a text, '' for none, None for the model's default.

        Raises:
            ConfigError: one word that is not the name of a prompt; put before a sentence it would join its first.
        """
        if wanted is None:
            return self.texts[self.default] if self.default is not None else ""
        if wanted in self.texts:
            return self.texts[wanted]
        if wanted.replace("-", "_").isidentifier():
            known = ", ".join(sorted(self.texts))
            what = (
                f"{wanted!r} is not the name of one of its prompts; {did_you_mean(wanted, self.texts)}"
                f"known: {known}. A text ends in a space or a mark, such as 'query: '"
            )
            raise ConfigError(Problem(where=f"{where}: prompt", what=what))
        return wanted


def stated_prompts(folder: Path, where: str) -> Prompts:
    """The prompts of a model folder; none for a plain Hugging Face encoder.

    Raises:
        ModelFileError: the file is damaged, or its default is not the name of a prompt.
    """
    path = folder / _FILE
    stated = is_file(folder / "modules.json", ModelFileError) and is_file(path, ModelFileError)
    found = json_object(path, where) if stated else {}
    texts, default = found.get("prompts") or {}, found.get("default_prompt_name")
    if not isinstance(texts, dict) or not all(text is None or isinstance(text, str) for text in texts.values()):
        raise ModelFileError(Problem(where=where, what=f"{path}: prompts: expected texts by name"))
    known = dict.fromkeys(_BUILT_IN, "") | {name: text or "" for name, text in texts.items()}
    if default is not None and default not in list(known):
        what = f"{path}: default_prompt_name is {default!r:.80}, expected one of {', '.join(known)}"
        raise ModelFileError(Problem(where=where, what=what))
    return Prompts(texts=known, default=default)


def set_prompt(encoder: SentenceTransformer, prompts: Prompts, wanted: str | None, where: str) -> None:
    """Give `encoder` its prompts, with `wanted` as the default (see `Prompts.text`)."""
    text = prompts.text(wanted, where)
    encoder.prompts = dict(prompts.texts)
    encoder.default_prompt_name = prompts.default
    if wanted is None:
        return
    if not text:
        encoder.default_prompt_name = None
    elif wanted in prompts.texts:
        encoder.default_prompt_name = wanted
    else:
        encoder.prompts[_CHOSEN] = text
        encoder.default_prompt_name = _CHOSEN


def prompt_of(encoder: SentenceTransformer) -> str:
    """What stands before every sentence; empty for most models."""
    name = encoder.default_prompt_name
    return (encoder.prompts.get(name) or "") if name is not None else ""


def excluded_tokens(encoder: SentenceTransformer) -> int:
    """How many first tokens pooling leaves out: the prompt's, where the model says `include_prompt: false`.

    Counted as sentence-transformers does: the tokens of the prompt alone, without a special token at their end.
    """
    prompt = prompt_of(encoder)
    if not prompt or all(getattr(module, "include_prompt", True) for module in encoder):
        return 0
    tokenizer = encoder.tokenizer
    ids: list[int] = tokenizer(prompt)["input_ids"]
    return len(ids) - (1 if ids and ids[-1] in tokenizer.all_special_ids else 0)
