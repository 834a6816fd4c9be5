"""What the stories corpus yields: documents and questions, and the settings that choose them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from groundup.base.config import Config
from groundup.base.errors import UsageError
from groundup.data import document

Split = Literal["train", "test"]
KINDS = ("story", "qa", "instruction", "arithmetic", "preference")


class Mix(Config):
    """How often each kind of document comes; the weights need not add up to one."""

    story: float = 0.55
    """Stories and nothing else."""
    qa: float = 0.2
    """A short scene or a story, then questions about it with their answers."""
    instruction: float = 0.1
    """A request and the text that fulfils it."""
    arithmetic: float = 0.1
    """Word problems solved step by step."""
    preference: float = 0.05
    """A prompt and its right continuation; the wrong one is in the document's `meta`."""


class StoriesConfig(Config):
    """Which documents of the stories corpus are made."""

    seed: int = 0
    """Another seed, other documents; the worlds stay the same."""
    split: Split = "train"
    """`test` has its own worlds and plots, and names and sentence patterns that `train` never shows."""
    documents: int | None = None
    """Stop after so many documents."""
    bytes: int | None = None
    """Stop at the end of the document that reaches this size in UTF-8."""
    start: int = 0
    """The number of the first document; each document depends on its own number alone."""
    step: int = 1
    """Make every `step`-th document: worker w of n takes `start=w, step=n`."""
    mix: Mix = Mix()

    def check(self) -> None:
        """Raise `UsageError` where the settings allow no document or no end to a negative count."""
        weights = self.mix.model_dump().values()
        if min(weights) < 0 or sum(weights) <= 0:
            raise UsageError("stories: the weights of `mix` must not be negative, and one must be above 0")
        if self.start < 0 or self.step < 1 or (self.documents or 0) < 0 or (self.bytes or 0) < 0:
            raise UsageError("stories: `start`, `documents` and `bytes` must be 0 or more, `step` 1 or more")


@dataclass(frozen=True)
class Document(document.Document):
    """One text of a built-in corpus. `id` is unique and stable; `world` is empty where there is none."""

    world: str = ""
    kind: str = "text"


class Question(NamedTuple):
    """A multiple-choice question whose answer follows from its context.

    `kind` says what is asked for; `hops` counts the statements that must be put together (1: it was just stated).
    """

    id: str
    context: str
    prompt: str
    choices: tuple[str, ...]
    answer: int
    kind: str
    hops: int
    world: str
    evidence: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The text before the answer, as documents of kind `qa` have it; a choice follows after a space."""
        return f"{self.context}\n\nQuestion: {self.prompt}\nAnswer:"
