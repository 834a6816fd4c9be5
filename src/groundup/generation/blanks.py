"""Fill the blanks of a text with a GLM (Du et al. 2022; Zeng et al. 2022, GLM-130B).

    To [MASK] or not to [MASK]  ->  the model reads   To [MASK] or not to [MASK] [START]   and writes   be [END]
    To be or not to [MASK]      ->                    To be or not to [MASK] [START]                    be [END]

One blank at a time, from left to right; what filled one stands in the text for the next, as the authors of GLM-130B do
it. A text without blanks goes on at its end: it gets [gMASK] there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.base.errors import UsageError
from groundup.generation.config import SamplingConfig, with_overrides
from groundup.generation.generate import Completion, end_ids, generate
from groundup.generation.infilling import encode_inside

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True)
class Filled:
    """A text without blanks, and what filled each, in the order of the text."""

    text: str
    blanks: list[Completion]


def fills_blanks(model: Any, tokenizer: "Tokenizer") -> bool:
    """Whether a model looks for blanks and the tokenizer has their marks, under the names that models give them."""
    shape = model.config
    if not hasattr(model, "paired") or shape.bos_token_id >= tokenizer.vocab_size:
        return False
    names = {name for name, spellings in shape.marks.items() for one in spellings if tokenizer.id(one) is not None}
    return {"mask_token_id", "bos_token_id"} <= names


def fill_blanks(
    model: Any,
    tokenizer: "Tokenizer",
    texts: Sequence[str],
    sampling: SamplingConfig | None = None,
    *,
    batch_size: int = 32,
    logprobs: bool = False,
    **overrides: Any,
) -> list[Filled]:
    """Fill all blanks.

    Args:
        model: one that fills blanks (`glm_2021`, `glm_130b`, `chatglm_6b`).
        tokenizer: its tokenizer, with the marks.
        texts: each with any number of [MASK], [sMASK], [gMASK], as the tokenizer has them.
        sampling: the settings, for each blank.
        batch_size: most texts at once.
        logprobs: fill `Completion.logprobs`.
        overrides: settings by name.

    Raises:
        UsageError: a model or tokenizer without marks; a text in which [gMASK] stands beside other blanks, for a model
            that would fill it first; and what `generate` raises.
    """
    config = with_overrides(sampling, None, overrides)
    rows = [blank_ids(model, tokenizer, text) for text in texts]
    blanks: list[list[Completion]] = [[] for _ in texts]
    marks = {*model.config.masks, model.config.bos_token_id, *end_ids(model, tokenizer), *config.stop_ids}
    while open_ := [i for i, row in enumerate(rows) if _first_blank(model, row) is not None]:
        prompts = [[*rows[i], model.config.bos_token_id] for i in open_]
        found = generate(model, tokenizer, prompts, config, batch_size=batch_size, logprobs=logprobs)
        for i, completion in zip(open_, found, strict=True):
            place = _first_blank(model, rows[i])
            assert place is not None
            inside = [id for id in completion.ids if id not in marks]  # one that is written is no mark
            rows[i] = [*rows[i][:place], *inside, *rows[i][place + 1 :]]
            blanks[i].append(completion)
    return [Filled(tokenizer.decode(row, skip_special=True), done) for row, done in zip(rows, blanks, strict=True)]


def blank_prompt(model: Any, tokenizer: "Tokenizer", text: str) -> list[int]:
    """The ids that the model continues with what fills the first blank."""
    return [*blank_ids(model, tokenizer, text), model.config.bos_token_id]


def blank_ids(model: Any, tokenizer: "Tokenizer", text: str) -> list[int]:
    """The ids of a text with blanks; [gMASK], or [MASK] where the model has no other, at the end of one without."""
    if not fills_blanks(model, tokenizer):
        raise UsageError(
            "filling blanks needs a GLM, and a tokenizer with the tokens [MASK] and <|startofpiece|> or <sop>"
        )
    shape = model.config
    spelled = {tokenizer.token(id): id for id in shape.masks}
    pieces = re.split("(" + "|".join(map(re.escape, spelled)) + ")", text)
    ids = tokenizer.encode(pieces[0]) if pieces[0] else []
    for piece in pieces[1:]:
        ids += [spelled[piece]] if piece in spelled else encode_inside(tokenizer, piece) if piece else []
    last = shape.mask_token_id if shape.gmask_token_id is None else shape.gmask_token_id
    kinds = {id for id in ids if id in shape.masks}
    if len(kinds) > 1 and model.prior_mask in kinds:
        raise UsageError(
            f"{shape.family()} fills {tokenizer.token(model.prior_mask)} before all other blanks: fill those first, "
            "then go on with the text"
        )
    return ids if kinds else [*ids, last]


def _first_blank(model: Any, ids: Sequence[int]) -> int | None:
    return next((place for place, id in enumerate(ids) if id in model.config.masks), None)
