"""The kinds of tokenizer that can be trained, by name. A new kind is a new member here; nothing else changes."""

from collections.abc import Callable, Iterable
from typing import Literal

from pydantic import Field

from groundup.base.config import Config, one_of
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

END_OF_TEXT = "<|endoftext|>"
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")


class TokenizerConfig(Config):
    """What every trainable tokenizer has."""

    special_tokens: tuple[str, ...] = (END_OF_TEXT, *CHAT_TOKENS)
    """Control tokens; they get the first ids."""
    bos: str | None = END_OF_TEXT
    """The special token that begins a text, where one is asked for."""
    eos: str | None = END_OF_TEXT
    """The special token that ends a document."""
    pad: str | None = END_OF_TEXT
    """The special token that fills up rows."""
    chat: Literal["chatml", "turns"] = "chatml"
    """How a conversation is written: chatml has control tokens, for models tuned on conversations; turns says `User:`
    and `Assistant:` in plain words, for models that only read text."""

    def train(self, texts: Iterable[str], progress: Callable[[int, int], None] | None = None) -> Tokenizer:
        """Learn from texts; `progress` is called with (tokens so far, tokens wanted)."""
        raise NotImplementedError

    def names(self) -> SpecialNames:
        """The parts that special tokens play; only tokens in `special_tokens` can play one."""
        parts = {part: getattr(self, part) for part in ("bos", "eos", "pad")}
        return SpecialNames(**{part: token for part, token in parts.items() if token in self.special_tokens})

    def template(self) -> str | None:
        """The chat template; none for chatml without its control tokens."""
        from groundup.tokenizers.chat import CHATML, TURNS

        if self.chat == "turns":
            return TURNS
        return CHATML if set(CHAT_TOKENS) <= set(self.special_tokens) else None


class CharactersConfig(TokenizerConfig):
    """One token a character."""

    kind: Literal["characters"] = "characters"
    unk: bool = False
    """Add <|unk|> for characters that were not in the training text; without it they are errors."""

    def train(self, texts: Iterable[str], progress: Callable[[int, int], None] | None = None) -> Tokenizer:
        """The characters of the texts, in order."""
        from groundup.tokenizers.characters import train_characters

        return train_characters(
            texts, self.special_tokens, unk=self.unk, names=self.names(), chat_template=self.template()
        )


class WordsConfig(TokenizerConfig):
    """One token a word; signs are tokens of their own, white space is lost."""

    kind: Literal["words"] = "words"
    unk: bool = True
    """Add <|unk|> for words that were not in the training text; without it they are errors."""
    min_frequency: int = Field(default=1, ge=1)
    """Words seen less often are left out of the vocabulary."""

    def train(self, texts: Iterable[str], progress: Callable[[int, int], None] | None = None) -> Tokenizer:
        """The words of the texts, in order."""
        from groundup.tokenizers.words import train_words

        return train_words(
            texts,
            self.special_tokens,
            unk=self.unk,
            min_frequency=self.min_frequency,
            names=self.names(),
            chat_template=self.template(),
        )


class WordPieceConfig(TokenizerConfig):
    """WordPiece: the longest token that fits (BERT)."""

    kind: Literal["wordpiece"] = "wordpiece"
    special_tokens: tuple[str, ...] = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", END_OF_TEXT, *CHAT_TOKENS)
    """Control tokens; they get the first ids."""
    vocab_size: int = Field(default=8192, ge=2)
    """Number of ids, special tokens and characters included."""
    score: Literal["likelihood", "frequency"] = "likelihood"
    """What joining two pieces gains: likelihood is log P(xy) / (P(x) P(y)); frequency is how often they stand together,
    as in the tokenizers library."""
    min_frequency: int = Field(default=2, ge=1)
    """Pairs seen less often are not joined."""
    lowercase: bool = True
    """Bring text to lower case, and take accents off, as uncased BERT does."""
    pad: str | None = "[PAD]"
    """The special token that fills up rows."""

    def train(self, texts: Iterable[str], progress: Callable[[int, int], None] | None = None) -> Tokenizer:
        """Learn pieces from the texts."""
        from groundup.tokenizers.bert import train_wordpiece

        return train_wordpiece(
            texts,
            self.vocab_size,
            self.special_tokens,
            score=self.score,
            min_frequency=self.min_frequency,
            lowercase=self.lowercase,
            names=self.names(),
            chat_template=self.template(),
            progress=progress,
        )


class ByteBPEConfig(TokenizerConfig):
    """Byte-level byte-pair encoding (GPT-2 and most later models)."""

    kind: Literal["byte_bpe"] = "byte_bpe"
    vocab_size: int = Field(default=4096, ge=257)
    """Number of ids, special tokens and the 256 bytes included."""
    pattern: str = "gpt2"
    """How text is cut before merging: gpt2, gpt4, llama3, or a regular expression."""
    normal_form: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = None
    """Unicode normal form that text is brought to first; with one, decoding gives back the normalized text."""
    min_frequency: int = Field(default=2, ge=0)
    """Pairs seen less often are not merged."""

    def train(self, texts: Iterable[str], progress: Callable[[int, int], None] | None = None) -> Tokenizer:
        """Learn merges from the texts."""
        from groundup.tokenizers.bpe_trainer import train_byte_bpe

        return train_byte_bpe(
            texts,
            self.vocab_size,
            self.special_tokens,
            pattern=self.pattern,
            normal_form=self.normal_form,
            min_frequency=self.min_frequency,
            names=self.names(),
            chat_template=self.template(),
            progress=progress,
        )


AnyTokenizer = one_of(TokenizerConfig)
