"""Learning BPE over characters, with a sign for the end of a word (Sennrich et al., 2016).

Words are what stands between white space. A word begins as its characters, the last with `</w>` joined to it; then the
most frequent pair is merged, and so on (`byte_bpe.Learner`). Of equally frequent pairs the one of the smaller ids comes
first, and ids are given to characters by code point, then to those that end words, then to what is merged. The
`tokenizers` library's BpeTrainer numbers those that end words in random order; given its order (`alphabet`),
vocabulary and merges are its own. `bpe_steps` is the version to read first.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from groundup.base.errors import DataError, UsageError
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.bpe import BPEModel
from groundup.tokenizers.bpe_steps import END_OF_WORD
from groundup.tokenizers.pipeline.decoders import BPEDecoder
from groundup.tokenizers.pipeline.pipeline import Pipeline
from groundup.tokenizers.pipeline.pre_tokenizers import WhitespaceSplit
from groundup.tokenizers.tokenizer import MAX_ID, SpecialNames
from groundup.tokenizers.training import counting
from groundup.tokenizers.training.byte_bpe import Learner
from groundup.tokenizers.training.splitting import ByParts
from groundup.tokenizers.words import UNKNOWN


def train_bpe(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    *,
    end_of_word: str = END_OF_WORD,
    unk: bool = True,
    min_frequency: int = 0,
    alphabet: Sequence[str] | None = None,
    names: SpecialNames | None = None,
    chat_template: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pipeline:
    """Learn a BPE tokenizer from texts. White space is not kept: decoding puts one space between words.

    Args:
        texts: each is read once.
        vocab_size: number of ids, special tokens and characters included; fewer where no pair is left.
        special_tokens: control tokens; they get the first ids.
        end_of_word: what the last symbol of a word ends with.
        unk: add `<|unk|>` for characters that are not in the texts; without it they are left out.
        min_frequency: rarer pairs are not merged.
        alphabet: the first symbols in the order of their ids, if not as the module says.
        names: which special tokens are BOS, EOS, ...
        chat_template: kept with the tokenizer.
        progress: called with (tokens so far, tokens wanted) after each merge.

    Raises:
        DataError: the texts hold no words.
        UsageError: no room for the characters, or special tokens that are repeated, empty or characters of the texts.
    """
    names, special = names or SpecialNames(), list(special_tokens)
    if unk:
        names = SpecialNames(names.bos, names.eos, names.pad, names.unk or UNKNOWN)
        special = special if names.unk in special else [*special, names.unk or UNKNOWN]
    words = count_words(texts)
    if not words:
        raise DataError("there is no text to learn from: the input is empty")
    first = alphabet_of(words, end_of_word) if alphabet is None else list(alphabet)
    _check(special, first, vocab_size)
    vocab = {token: number for number, token in enumerate([*special, *first])}

    def symbols(word: str) -> list[str]:
        return [*word[:-1], word[-1] + end_of_word]

    learner = Learner(words, vocab, min_frequency, frozenset(special), symbols)
    while len(vocab) < vocab_size and learner.step():
        if progress is not None:
            progress(len(vocab), vocab_size)
    return Pipeline(
        BPEModel(vocab, learner.merges, unk=names.unk, suffix=end_of_word),
        [AddedToken(token, vocab[token]) for token in special],
        pre_tokenizer=WhitespaceSplit(),
        decoder=BPEDecoder(end_of_word),
        names=names,
        chat_template=chat_template,
    )


def count_words(texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs."""
    return counting.count_words(texts, ByParts(WhitespaceSplit()))


def alphabet_of(words: Iterable[str], end_of_word: str = END_OF_WORD) -> list[str]:
    """The characters of the words by code point, then those that end words, with the sign."""
    words = list(words)
    every = sorted({character for word in words for character in word})
    return [*every, *(character + end_of_word for character in sorted({word[-1] for word in words}))]


def _check(special: Sequence[str], first: Sequence[str], vocab_size: int) -> None:
    if len(set(special)) != len(special) or not all(special) or set(special) & set(first):
        raise UsageError(f"special tokens must be different, not empty and no characters of the text, got {special}")
    smallest = len(special) + len(first)
    if not smallest <= vocab_size <= MAX_ID:
        raise UsageError(
            f"vocab_size {vocab_size} must be {smallest} to {MAX_ID}: "
            f"{len(first)} characters and {len(special)} special tokens are always in"
        )
