"""Vocabulary files that are damaged, cut off, absurd or hostile: refused clearly, in bounded time, and never run."""

import base64
import contextlib
import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from groundup.base.errors import CheckpointError, GroundupError, UsageError
from groundup.tokenizers.formats import bert_vocab, bounded, openai_gpt2, rwkv_vocabulary, tiktoken_ranks
from groundup.tokenizers.hub import FORMATS, load_tokenizer
from groundup.tokenizers.training.byte_bpe import train_byte_bpe
from groundup.tokenizers.trie import Trie, spell

QUICK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
BYTES = b"".join(base64.b64encode(bytes([byte])) + b" %d\n" % byte for byte in range(256))
RWKV = "".join(f"{byte + 1} {bytes([byte])!r} 1\n" for byte in range(256)).encode()
BERT = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\n##re\n"


def refused(tmp_path, name, content, message, pattern=None):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GroundupError, match=message):
        load_tokenizer(tmp_path / name, pattern=pattern)


@pytest.mark.row("TOK-12", reference="property: damaged files are refused")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BYTES + b"!!! 256\n", "line 257: a token in base64"),
        (BYTES + b"YWI 256\n", "line 257: .* is not base64"),
        (BYTES + b"YWI= x\n", "line 257"),
        (BYTES + b"YWI= -1\n", "line 257"),
        (BYTES + b"YWI= 1 2\n", "line 257"),
        (BYTES + b"YWI= 99999999999999999999\n", "below 16,777,216"),
        (BYTES + b"YWI= 16777216\n", "below 16,777,216"),
        (BYTES + b"YWI= 255\n", "line 257: rank 255 stands in line 256 already"),
        (BYTES + b"IQ== 256\n", "line 257: b'!' is repeated"),
        (BYTES + b"YWI= 256\n" + b"A" * 9000 + b" 257\n", "line 258"),
        (BYTES[: BYTES.index(b"\n", 900) + 1], "bytes have no symbol"),
        (BYTES + b"\xff\xfe\n", "line 257"),
    ],
)
def test_damaged_ranks(tmp_path, content, message):
    refused(tmp_path, "x.tiktoken", content, message, "gpt2")


@pytest.mark.row("TOK-18", reference="property: damaged files are refused")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("300 'ab' 3", "'ab' has 2 bytes, and the line says 3"),
        ("300 'ab'", "an id, a quoted text and its length"),
        ("300 ab 2", "an id, a quoted text"),
        ("x 'ab' 2", "an id, a quoted text"),
        ("300 '' 0", "has 0 bytes"),
        ("300 'a' 'b' 2", "an id, a quoted text"),
        ("300 f'{1}' 1", "an id, a quoted text"),
        ("300 __import__('os').system('touch canary') 3", "an id, a quoted text"),
        ("300 'a'.__class__ 1", "an id, a quoted text"),
        ("300 ['a'] 1", "an id, a quoted text"),
        ("300 'a' * 10**9 1", "an id, a quoted text"),
        (r"300 '\x4' 1", "is no text"),
        (r"300 '\ud800' 3", "is no text"),
        (r"300 b'\u0100é' 1", "is no text|bytes"),
        ("256 'ab' 2", "the id stands in an earlier line already"),
        ("300 'a' 1", "the token stands in an earlier line already"),
        ("99999999 'ab' 2", "not below"),
        ("300 '" + "a" * 5000 + "' 5000", "an id, a quoted text"),
    ],
)
def test_damaged_rwkv_vocabulary(tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, "rwkv_vocab.txt", RWKV + line.encode() + b"\n", message)
    refused(tmp_path, "rwkv_vocab.txt", RWKV[:900], "256 bytes are no token|is expected|are expected")
    assert not (tmp_path / "canary").exists()


@pytest.mark.row("TOK-13", reference="property: damaged files are refused")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BERT + b"the\n", "line 8: 'the' stands in line 6 already"),
        (BERT + b"\nx\n", "line 8: the line is empty"),
        (BERT.replace(b"[UNK]", b"[unk]"), r"has no \[UNK\]"),
        (BERT + b"\xff\n", "line 8: byte .* is not UTF-8"),
    ],
)
def test_damaged_vocab_txt(tmp_path, content, message):
    refused(tmp_path, "vocab.txt", content, message)


@pytest.mark.parametrize("config", [{"do_lower_case": "yes"}, {"unk_token": 3}, {"strip_accents": 1}])
def test_wrong_settings_beside_vocab_txt(tmp_path, config):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    refused(tmp_path, "vocab.txt", BERT, "tokenizer_config.json")


@pytest.mark.row("TOK-11", reference="property: damaged files are refused")
@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ("[1]", "a b\n", "object from token to id"),
        ("{", "a b\n", "JSON|json"),
        ('{"a": 0}', "a b\n", "bytes have no symbol"),
        (None, "a\n", "line 1: two symbols"),
        (None, "a b c\n", "line 1: two symbols"),
        (None, "#version: 0.2\na b\n", "'ab', which is not in the vocabulary"),
        (None, "\xff", "two symbols|UTF-8"),
        ('{"a": -1}', "", "whole number"),
        ('{"a": 1e9}', "", "whole number"),
        ('{"a": 99999999999}', "", "whole number"),
    ],
)
def test_damaged_pairs(tmp_path, vocab, merges, message):
    plain = json.dumps(train_byte_bpe(["x"], 256).vocab)
    (tmp_path / "vocab.json").write_text(plain if vocab is None else vocab)
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(GroundupError, match=message):
        load_tokenizer(tmp_path)


@pytest.mark.row("TOK-11", reference="property: any damage is an error or a tokenizer")
@pytest.mark.row("TOK-12", reference="property: any damage is an error or a tokenizer")
@pytest.mark.row("TOK-18", reference="property: any damage is an error or a tokenizer")
@pytest.mark.parametrize(
    ("name", "content"), [("x.tiktoken", BYTES), ("rwkv_vocab.txt", RWKV), ("vocab.txt", BERT), ("x", b"")]
)
@QUICK
@given(data=st.data())
def test_any_damage(tmp_path, name, content, data):
    """Bytes changed, cut off, doubled, put in: a clear error, or a tokenizer that works; nothing else."""
    place = data.draw(st.integers(0, len(content)))
    damaged = content[:place] + data.draw(st.binary(max_size=40)) + content[data.draw(st.integers(0, len(content))) :]
    (tmp_path / name).write_bytes(damaged)
    for pattern in (None, "gpt2"):
        with contextlib.suppress(GroundupError):
            tokenizer = load_tokenizer(tmp_path / name, pattern=pattern)
            with contextlib.suppress(UsageError):
                tokenizer.decode(tokenizer.encode("the é 中\n"))


@pytest.mark.parametrize("name", ["tokenizer.model", "vocab.txt", "rwkv_vocab.txt", "x.tiktoken", "encoder.json", "y"])
@QUICK
@given(content=st.binary(max_size=300))
@example(content=b"")
def test_any_bytes(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "vocab.bpe").write_bytes(content)
    with contextlib.suppress(GroundupError):
        load_tokenizer(tmp_path / name)


def test_files_beyond_all_measure_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "MAX_TEXT_BYTES", 100)
    for module, name, content in [
        (tiktoken_ranks, "x.tiktoken", BYTES),
        (rwkv_vocabulary, "rwkv_vocab.txt", RWKV),
        (bert_vocab, "vocab.txt", BERT),
    ]:
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(content)
            file.truncate(2**27)  # a hole: nothing on the disk
        with pytest.raises(CheckpointError, match="larger than"):
            module.read(path)


def test_sniffing_reads_the_beginning_only(tmp_path):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(2**36)
    with pytest.raises(CheckpointError, match="no tokenizer that is known here"):
        load_tokenizer(big)


def test_an_unknown_folder_tells_what_was_looked_for(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(tmp_path)
    for kind in FORMATS:
        assert kind.what in str(caught.value)
    assert "found notes.md" in str(caught.value)


def test_a_pattern_for_files_that_have_their_own(tmp_path):
    (tmp_path / "rwkv_vocab.txt").write_bytes(RWKV)
    (tmp_path / "vocab.txt").write_bytes(BERT)
    for name in ("rwkv_vocab.txt", "vocab.txt"):
        with pytest.raises(UsageError, match="leave `pattern` off"):
            load_tokenizer(tmp_path / name, pattern="gpt2")


def test_a_class_whose_cutting_is_unknown_is_refused(tmp_path):
    openai_gpt2.write(train_byte_bpe(["the the"], 260), tmp_path, ("vocab.json", "merges.txt"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LEDTokenizer"}')
    with pytest.raises(UsageError, match="how a LEDTokenizer cuts text is not known"):
        load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path, pattern="gpt2").encode("the")


def test_trie_faults():
    vocab = {spell(bytes([byte])): byte for byte in range(256)}
    with pytest.raises(CheckpointError, match="1 of the 256 bytes"):
        Trie({token: number for token, number in vocab.items() if number})
    with pytest.raises(CheckpointError, match="not the spelling of bytes"):
        Trie(vocab | {"a b": 256})
    with pytest.raises(CheckpointError, match="size 3"):
        Trie(vocab, size=3)
    long = Trie(vocab | {spell(b"a" * 3000 + b"b"): 256, spell(b"a" * 2000): 257})
    assert long.encode("a" * 100_000) == [257] * 50
