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
        from groundup.tokenizers.chat.render import CHATML, TURNS

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


class BPEConfig(TokenizerConfig):
    """Byte-pair encoding over characters (Sennrich et al., 2016): words between white space, their ends marked."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = Field(default=4096, ge=2)
    """Number of ids, special tokens and characters included."""
    end_of_word: str = Field(default="</w>", min_length=1)
    """What the last symbol of each word ends with, so that `est` inside a word and `est</w>` differ."""
    unk: bool = True
    """Add <|unk|> for characters that were not in the training text; without it they are left out."""
    min_frequency: int = Field(default=2, ge=0)
    """Pairs seen less often are not merged."""

    def train(self, texts: Iterable[str], progress: Callable[[int, int], None] | None = None) -> Tokenizer:
        """Learn merges from the texts."""
        from groundup.tokenizers.training.bpe import train_bpe

        return train_bpe(
            texts,
            self.vocab_size,
            self.special_tokens,
            end_of_word=self.end_of_word,
            unk=self.unk,
            min_frequency=self.min_frequency,
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
        from groundup.tokenizers.training.byte_bpe import train_byte_bpe

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


class SentencePieceConfig(TokenizerConfig):
    """Whole sentences, a space is a symbol (T5, Llama-2, Gemma); each line of the text is a sentence."""

    kind: Literal["sentencepiece"] = "sentencepiece"
    vocab_size: int = Field(default=4096, ge=2)
    """Number of ids, special tokens, symbols, bytes and characters included."""
    model: Literal["unigram", "bpe"] = "unigram"
    """How text is cut: unigram (the most probable pieces) or bpe (merges)."""
    normalization: Literal["identity", "nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf"] = "nmt_nfkc"
    """What happens to characters first; with identity and byte fallback nothing but line ends and spaces is changed."""
    coverage: float = Field(default=0.9995, gt=0, le=1)
    """The share of the text's characters that get a piece of their own."""
    byte_fallback: bool = False
    """Other characters become their bytes (256 pieces more); without, they become <unk>."""
    symbols: tuple[str, ...] = ()
    """Spellings that are always one token, wherever they stand."""
    split_digits: bool = False
    """Every digit is a piece of its own."""
    split_by_script: bool = True
    """A piece never mixes scripts, or letters with signs."""
    split_by_whitespace: bool = True
    """A piece never goes over a space."""
    remove_extra_whitespaces: bool = True
    """Spaces at the ends go, and runs of them become one."""
    keep: float = Field(default=0.75, gt=0, lt=1)
    """unigram: the share of pieces that each round of pruning keeps."""

    def train(self, texts: Iterable[str], progress: Callable[[int, int], None] | None = None) -> Tokenizer:
        """Learn pieces from the texts."""
        from groundup.tokenizers.sentencepiece.pieces import PieceRules
        from groundup.tokenizers.training.sentencepiece import SentencePieceSettings, train_sentencepiece
        from groundup.tokenizers.training.unigram import UnigramSettings

        rules = PieceRules(
            by_script=self.split_by_script,
            by_whitespace=self.split_by_whitespace,
            digits_apart=self.split_digits,
            only_spaces=not self.remove_extra_whitespaces,
        )
        settings = SentencePieceSettings(
            self.vocab_size,
            self.model,
            self.normalization,
            self.coverage,
            self.byte_fallback,
            self.special_tokens,
            self.symbols,
            self.remove_extra_whitespaces,
            rules=rules,
            unigram=UnigramSettings(keep=self.keep),
        )
        return train_sentencepiece(
            texts, settings, names=self.names(), chat_template=self.template(), progress=progress
        )


AnyTokenizer = one_of(TokenizerConfig)
