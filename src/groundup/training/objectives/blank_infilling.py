"""Autoregressive blank infilling (Du et al. 2022, GLM): write what was taken out of a text, span by span.

loss = - sum over spans s, in shuffled order, and t of log p(s[t] | text with blanks, spans before s, s[..t])

A row of text becomes part A, the text with blanks, and part B, the spans (`layers/blank_infilling.py`):

    kind        blank     spans (`data/spans.py`)                  after a span
    short       [MASK]    15 % of the text, lengths of a Poisson   [END]
    sentence    [sMASK]   15 % of the text, whole sentences        [END]
    document    [gMASK]   the last 50 to 100 % of the text         nothing: the text goes on where the row was cut

GLM (base, large): short alone. Its larger sizes: all three. GLM-130B: 30 % short, 70 % document from 0 to 100 %.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from groundup.base.errors import UsageError
from groundup.data.spans import SENTENCE_ENDS, Span, last_span, sentence_spans, short_spans
from groundup.layers.blank_infilling import blank_infilling
from groundup.training.objectives.cross_entropy import IGNORED
from groundup.training.objectives.language_modeling import LanguageModeling
from groundup.training.objectives.objective import Batch

if TYPE_CHECKING:
    from groundup.training.objectives.config import BlankInfillingConfig

WIDTH_STEP = 8
"""Rows are padded to a multiple of this width: few widths, so that compiled blocks are seldom compiled again."""


class MarkIds(NamedTuple):
    """The ids of the marks: of each kind's blank, of [START] and of [END]."""

    short: int
    sentence: int
    document: int
    start: int
    end: int


class Taken(NamedTuple):
    """What is taken out of a text."""

    spans: list[Span]
    mask: int
    """Stands for a span."""
    end: int | None
    """Ends a span; None where spans are cut off."""
    runs_on: bool
    """Whether single positions run on in part B, or stay at the blank."""


class BlankInfilling(LanguageModeling):
    """Cross-entropy of the spans; its weight is the number of their tokens and ends.

    Each document of a row has blanks of its own; rows grow by two tokens a span and are padded on the right. Which
    spans are taken out depends on torch's generator alone: on seed and step in training, nothing in evaluation.

    Args:
        config: which spans.
        marks: their ids.
        paired: whether the model has two positions of a token; else those of GLM-130B.
        ends: (V,) bool, the tokens that end a sentence; needed for the kind `sentence`.
    """

    config: "BlankInfillingConfig"

    def __init__(self, config: "BlankInfillingConfig", marks: MarkIds, *, paired: bool, ends: np.ndarray | None = None):
        super().__init__(config)
        self.marks, self.paired, self.ends = marks, paired, ends
        if config.sentence and ends is None:
            raise UsageError("blanks of whole sentences need `ends`: which tokens end a sentence")

    @classmethod
    def for_model(cls, config: "BlankInfillingConfig", model: Any, tokenizer: Any) -> "BlankInfilling":
        """With the marks and positions of a model; the tokenizer tells which tokens end sentences."""
        shape = model.config
        if not hasattr(model, "paired"):
            raise UsageError(
                "blank_infilling needs a model that fills blanks (glm_2021, glm_130b, chatglm_6b), "
                f"not {shape.family()}"
            )
        short = shape.mask_token_id
        sentence, document = (getattr(shape, f"{kind}mask_token_id", None) for kind in "sg")
        marks = MarkIds(
            short,
            short if sentence is None else sentence,
            short if document is None else document,
            shape.bos_token_id,
            shape.eop_token_id,
        )
        check(marks, shape)
        return cls(config, marks, paired=model.paired, ends=sentence_ends(tokenizer) if config.sentence else None)

    def corrupt(self, batch: Batch) -> Batch:
        """Rows of text -> rows of part A and part B with labels, documents, positions and segments."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        texts, documents = batch["ids"].tolist(), batch.get("documents")
        whole = torch.ones_like(batch["ids"]) if documents is None else documents
        rows = [self._row(ids, owner, rng) for ids, owner in zip(texts, whole.tolist(), strict=True)]
        width = -(-max(len(row["ids"]) for row in rows) // WIDTH_STEP) * WIDTH_STEP
        joined = {name: torch.stack([_padded(row[name], width, PADDING[name]) for row in rows]) for name in PADDING}
        return joined | {name: value for name, value in batch.items() if not isinstance(value, Tensor)}

    def _row(self, ids: list[int], documents: list[int], rng: np.random.Generator) -> dict[str, Tensor]:
        """One row; padding of the text is left out."""
        parts = [
            self._document(ids[first:last], number, rng)
            for number, (first, last) in enumerate(document_runs(documents), start=1)
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in PADDING}

    def _document(self, ids: list[int], number: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """One document with blanks of one kind, and what stood in them."""
        spans, mask, end, runs_on = self._take(ids, rng)
        order = rng.permutation(len(spans)).tolist() if self.config.shuffle else None
        blanks = blank_infilling(ids, spans, mask=mask, start=self.marks.start, end=end, order=order)
        return {
            "ids": blanks.ids,
            "labels": blanks.targets,
            "positions": blanks.positions if self.paired else blanks.single(runs_on),
            "documents": torch.full_like(blanks.ids, number),
            "segments": (blanks.positions[:, 1] > 0).long(),
        }

    def _take(self, ids: list[int], rng: np.random.Generator) -> Taken:
        """Draw a kind of blanks, and the spans."""
        c, marks, drawn = self.config, self.marks, rng.random()
        if not ids:  # of a row that is padding alone
            return Taken([], marks.short, marks.end, False)
        if drawn < c.document:
            spans = last_span(len(ids), rng, least=c.document_least, most=c.document_most)
            return Taken(spans, marks.document, None, True)
        if drawn < c.document + c.sentence:
            assert self.ends is not None
            spans = sentence_spans(self.ends[ids].tolist(), rng, share=c.blanked)
            return Taken(spans, marks.sentence, marks.end, False)
        spans = short_spans(len(ids), rng, share=c.blanked, mean=c.mean_span, longest=c.longest_span)
        return Taken(spans, marks.short, marks.end, False)


PADDING = {"ids": 0, "labels": IGNORED, "positions": 0, "documents": 0, "segments": 1}
"""What rows hold, and what fills them up."""


def _padded(values: Tensor, width: int, fill: int) -> Tensor:
    out = values.new_full((width, *values.shape[1:]), fill)
    out[: len(values)] = values
    return out


def document_runs(documents: Sequence[int]) -> list[Span]:
    """Where each document of a row stands: runs of equal numbers, those of padding (0) left out; (0, 0) where that is
    all there is.
    """
    starts = [at for at, number in enumerate(documents) if at == 0 or number != documents[at - 1]]
    runs = zip(starts, [*starts[1:], len(documents)], strict=True)
    return [(first, last) for first, last in runs if documents[first] != 0] or [(0, 0)]


def sentence_ends(tokenizer: Any) -> np.ndarray:
    """Which tokens end a sentence, (V,) bool."""
    texts = (tokenizer.decode([id]) for id in range(tokenizer.vocab_size))
    return np.array([any(end in text for end in SENTENCE_ENDS) for text in texts])


def check(marks: MarkIds, shape: Any) -> None:
    """A UsageError where a mark is outside the vocabulary, or two that must differ do not."""
    outside = {name: id for name, id in marks._asdict().items() if id >= shape.vocab_size}
    if outside or len({marks.short, marks.start, marks.end}) < 3:
        told = ", ".join(f"{name} {id}" for name, id in (outside or marks._asdict()).items())
        wanted = ", ".join(spellings[0] for spellings in shape.marks.values())
        raise UsageError(
            f"blank_infilling needs marks of their own in a vocabulary of {shape.vocab_size:,}, but the model's are: "
            f"{told}. Give the tokenizer special_tokens {wanted}"
        )
