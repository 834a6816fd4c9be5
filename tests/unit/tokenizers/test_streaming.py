"""Streamed pieces, joined, are `decode` of all ids: every kind, any ids."""

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.bpe import BPEModel
from groundup.tokenizers.pipeline.cutting import Pattern
from groundup.tokenizers.pipeline.decoders import ByteFallback, Fuse, Replace, Sequence, Strip
from groundup.tokenizers.pipeline.pipeline import Pipeline
from groundup.tokenizers.registry import (
    BPEConfig,
    ByteBPEConfig,
    CharactersConfig,
    SentencePieceConfig,
    WordPieceConfig,
    WordsConfig,
)
from groundup.tokenizers.streaming import StreamDecoder
from groundup.tokenizers.trie import Trie, spell
from groundup.tokenizers.words import SimpleTokenizerV1, SimpleTokenizerV2
from groundup.tokenizers.words import build_vocabulary as words_vocabulary

TEXTS = ["Hello, world! It's the   cat.\n", "the hat -- the rat (naïve façade) 中文 🙂 1234\n"] * 3
CONFIGS = {
    "characters": CharactersConfig(),
    "words": WordsConfig(),
    "words_unless_unknown": WordsConfig(unk=False),
    "wordpiece": WordPieceConfig(vocab_size=120),
    "bpe": BPEConfig(vocab_size=90),
    "byte_bpe": ByteBPEConfig(vocab_size=290),
    "unigram": SentencePieceConfig(vocab_size=60, coverage=1),
    "sentencepiece_bytes": SentencePieceConfig(vocab_size=320, model="bpe", byte_fallback=True, coverage=0.9),
    "sentencepiece_identity": SentencePieceConfig(
        vocab_size=320, model="bpe", byte_fallback=True, normalization="identity", remove_extra_whitespaces=False
    ),
}
OTHERS = {
    "trie": lambda: Trie(
        {spell(bytes([byte])): byte for byte in range(256)} | {spell(b" the"): 256, spell("é".encode()): 257},
        [AddedToken("<|x|>", 258)],
    ),
    "simple_1": lambda: SimpleTokenizerV1(words_vocabulary("the cat , . ( ) --".split())),
    "simple_2": lambda: SimpleTokenizerV2(words_vocabulary("the cat , . ( ) --".split())),
}


@cache
def tokenizer_of(name):
    return CONFIGS[name].train(TEXTS) if name in CONFIGS else OTHERS[name]()


def streamed(tokenizer, ids, skip=False):
    stream = StreamDecoder(tokenizer, skip_special=skip)
    return [*(stream.push(number) for number in ids), stream.finish()]


@pytest.mark.parametrize("name", [*CONFIGS, *OTHERS])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))  # type: ignore[arg-type]
@given(data=st.data())
def test_joined_pieces_are_the_decoded_text(name, data):
    tokenizer = tokenizer_of(name)
    known = sorted(tokenizer.vocab.values())
    ids = data.draw(st.lists(st.sampled_from(known), max_size=24))
    for skip in (False, True):
        pieces = streamed(tokenizer, ids, skip)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special=skip), (ids, pieces)


@pytest.mark.parametrize("name", [*CONFIGS, "trie"])
def test_a_real_text_comes_piece_by_piece(name):
    """Early, and beginning as `decode` does: no space before the first word."""
    tokenizer = tokenizer_of(name)
    ids = tokenizer.encode(" ".join(TEXTS).replace("\n", " ") if name != "characters" else TEXTS[0])
    pieces = streamed(tokenizer, ids)
    whole = tokenizer.decode(ids)
    assert "".join(pieces) == whole
    first = next(piece for piece in pieces if piece)
    assert first.startswith(" ") == whole.startswith(" ")
    assert sum(map(bool, pieces)) > len(ids) / 3  # not all at the end


def test_one_wrong_byte_spoils_its_run():
    """The `tokenizers` library's ByteFallback: a run of bytes is text as a whole, or U+FFFD for each byte."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"a": 256}
    decoder = Sequence((ByteFallback(), Fuse()))
    tokenizer = Pipeline(BPEModel(vocab, [], byte_fallback=True), decoder=decoder)
    for ids in ([256, 0x26, 0x26, 0x8B, 256, 256], [0xC3, 0xA9, 256, 0x41, 0xFF], [*"中文".encode(), 256]):
        assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)
    assert streamed(tokenizer, [*"é".encode(), 256, 256]) == ["", "", "é", "a", "a"]
    assert tokenizer.decode([0x26, 0x8B, 256]) == "\ufffd\ufffda"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0x26, 0x41, 0xC3, 0xA9, 0xE4, 0xB8, 0xAD, 256]), max_size=16))
def test_any_run_of_bytes(ids):
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁a": 256}
    decoder = Sequence((Replace(Pattern("▁", is_regex=False), " "), ByteFallback(), Fuse(), Strip(" ", 1, 0)))
    tokenizer = Pipeline(BPEModel(vocab, [], byte_fallback=True), decoder=decoder)
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_stream_begins_anew():
    tokenizer = tokenizer_of("words")
    stream, ids = StreamDecoder(tokenizer), tokenizer.encode("the cat")
    for _ in range(2):
        assert [stream.push(number) for number in ids] + [stream.finish()] == ["", "the", " cat"]
