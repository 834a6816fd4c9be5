"""Encoding, decoding, streaming, files and their faults, without a reference library."""

import itertools
import json
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import CheckpointError, DataError, UsageError
from groundup.tokenizers import byte_bpe
from groundup.tokenizers.byte_symbols import ALPHABET, to_bytes, to_symbols
from groundup.tokenizers.characters import train_characters
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.merging import _scan, _with_heap
from groundup.tokenizers.pipeline.normal_forms import normalize
from groundup.tokenizers.pipeline.parts import Part
from groundup.tokenizers.pipeline.reading import read_pipeline
from groundup.tokenizers.pretokenize import CHUNK, PATTERNS, PreTokenizer
from groundup.tokenizers.streaming import StreamDecoder
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training.byte_bpe import train_byte_bpe

TEXT = "the cat sat on the mat; the hat, the rat 🙂 und die Straße\n\n  1234 isn't 中文\n" * 3
SPECIAL = ["<|endoftext|>", "<|im_end|>"]


@pytest.fixture(scope="module", params=list(PATTERNS))
def bpe(request):
    names = SpecialNames(bos=SPECIAL[0], eos=SPECIAL[0])
    return train_byte_bpe([TEXT], 320, SPECIAL, pattern=request.param, names=names)


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_any_text_comes_back(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 319)))
def test_streamed_pieces_join_to_the_whole(bpe, ids):
    ids = [number % bpe.vocab_size for number in ids]
    for skip in (False, True):
        decoder = StreamDecoder(bpe, skip_special=skip)
        assert "".join(map(decoder.push, ids)) + decoder.finish() == bpe.decode(ids, skip_special=skip)


def test_stream_holds_back_an_unfinished_character(bpe):
    first, *rest = [bpe.id(symbol) for symbol in to_symbols("é".encode())]
    decoder = StreamDecoder(bpe)
    assert decoder.push(first) == ""
    assert decoder.push(rest[0]) == "é"
    assert decoder.push(first) == ""
    assert decoder.finish() == "\ufffd"
    assert decoder.finish() == ""


def test_special_tokens_are_text_unless_allowed(bpe):
    text = "a<|im_end|>b"
    assert bpe.special_tokens["<|im_end|>"] not in bpe.encode(text)
    assert bpe.encode(text, allowed_special=True).count(1) == 1
    assert bpe.decode(bpe.encode(text)) == bpe.decode(bpe.encode(text, allowed_special=True)) == text
    assert bpe.encode("", bos=True, eos=True) == [0, 0]
    assert bpe.decode([0, *bpe.encode("x"), 0], skip_special=True) == "x"


def test_offsets_of_what_is_put_around_a_text():
    names = SpecialNames(bos="<|b|>", eos="<|e|>")
    trained = train_byte_bpe(["a b"], 258, ["<|b|>", "<|e|>"], names=names)
    made = trained.encode_offsets("é", bos=True, eos=True)
    assert made.ids == trained.encode("é", bos=True, eos=True)
    assert (made.ids[0], made.ids[-1], made.tokens[0], made.tokens[-1]) == (0, 1, "<|b|>", "<|e|>")
    assert made.offsets[1:-1] == [(0, 1), (0, 1)]


def test_no_merge_makes_a_special_token():
    trained = train_byte_bpe(["stop stop stop stop"], 300, ["stop"])
    assert 0 not in trained.encode("stop stop")
    assert trained.encode("stop", allowed_special=True) == [0]


@settings(max_examples=100, deadline=None)
@given(text=st.text("stop ", max_size=40) | st.lists(st.sampled_from(["stop", "st", "op", " ", "é"])).map("".join))
def test_no_merge_of_a_file_makes_a_special_token(from_a_file, text):
    """A tokenizer.json may call special what its merges make: text is cut as the same file's parts cut it."""
    ours, parts = from_a_file
    control = ours.special_tokens["stop"]
    ids = ours.encode(text)
    assert control not in ids
    assert ids == parts.encode(text) == ours.encode_batch([text])[0]
    assert ours.decode(ids) == text
    assert ours.encode("stop", allowed_special=True) == [control]


@pytest.fixture(scope="module", params=[False, True], ids=["merged", "looked up whole"])
def from_a_file(request, tmp_path_factory):
    spec = train_byte_bpe(["stop stops stopstop stopper"] * 9, 290).to_json()
    flags = dict.fromkeys(("normalized", "lstrip", "rstrip", "single_word"), False)
    number = spec["model"]["vocab"]["stop"]
    spec["added_tokens"].append({"id": number, "content": "stop", "special": True, **flags})
    spec["model"]["ignore_merges"] = request.param
    path = tmp_path_factory.mktemp("stop") / "tokenizer.json"
    path.write_text(json.dumps(spec))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_bpe, "MUCH", 0)  # the compiled form from the first text on
        yield load_tokenizer(path), read_pipeline(Part(spec, "stop"))


def test_ids_outside_are_errors(bpe):
    for wrong in (-1, bpe.vocab_size):
        with pytest.raises(UsageError, match=f"id {wrong} "):
            bpe.decode([0, wrong])
        with pytest.raises(UsageError, match=f"id {wrong} "):
            bpe.token_bytes(wrong)
    assert bpe.id("no such token") is None


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "\u0301" * 10**5, " " * 10**6, "\n" * 10**5, "ab" * 10**5, "é中" * 10**5]
)
def test_long_pieces_finish_and_come_back(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


def test_both_ways_to_merge_agree():
    random = Random(0)
    for _ in range(500):
        pairs = random.sample(list(itertools.product(range(10), repeat=2)), 60)
        merges = {pair: (rank, 4 + rank % 6) for rank, pair in enumerate(pairs)}
        ids = random.choices(range(4), k=40)
        assert _with_heap(list(ids), merges) == _scan(list(ids), merges)


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(max_codepoint=127)))
def test_the_fast_way_for_ascii_cuts_alike(text):
    import regex

    for pattern in PATTERNS.values():
        assert PreTokenizer(pattern).split(text) == regex.findall(pattern, text)


def test_long_texts_are_cut_alike_in_chunks():
    import regex

    text = ("word  two \n\n  three...\r\n 'll \t x" * 5000)[: 3 * CHUNK]
    for pattern in PATTERNS.values():
        assert PreTokenizer(pattern).split(text) == regex.findall(pattern, text)


def test_a_pattern_that_leaves_gaps_loses_nothing():
    assert PreTokenizer(r"\d+").split("ab12cd3") == ["ab", "12", "cd", "3"]
    with pytest.raises(UsageError, match="Did you mean `gpt4`"):
        PreTokenizer("gpt5")
    with pytest.raises(UsageError, match="not a regular expression"):
        PreTokenizer("(")


def test_byte_symbols_are_a_bijection():
    assert len(set(ALPHABET)) == 256
    data = bytes(range(256))
    assert to_bytes(to_symbols(data)) == data
    assert to_symbols(b" a\n") == "ĠaĊ"
    assert to_bytes("中") is None


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("a\u0301\u0323\u030a\u0345\u1100\u1161é\u0f71\u0f72\u0f74\u034f"), max_size=200))
def test_normalizing_long_runs_of_marks(text):
    import unicodedata

    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert normalize(form, text) == unicodedata.normalize(form, text)


def test_normal_form_applies_before_encoding():
    trained = train_byte_bpe([TEXT], 300, normal_form="NFC")
    assert trained.encode("e\u0301") == trained.encode("é")
    assert trained.decode(trained.encode("\u0301\u0323" * 10**5)).startswith("\u0323")


def test_characters_name_what_they_do_not_know():
    trained = train_characters(["abc\n"])
    with pytest.raises(UsageError, match=r"'ж' \(U\+0436\) at position 5 \(line 2\)"):
        trained.encode("abc\nbж")
    with_unk = train_characters(["abc"], unk=True)
    assert with_unk.encode("aжb") == [1, 0, 2]
    assert with_unk.decode([1, 0, 2]) == "a<|unk|>b"
    with pytest.raises(DataError, match="empty"):
        train_characters([""])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [((100, []), "must be 256 to"), ((300, ["a", "a"]), "different"), ((300, ["!"]), "symbol of a byte")],
)
def test_wrong_training_settings(settings_, message):
    with pytest.raises(UsageError, match=message):
        train_byte_bpe(["x"], *settings_)


def test_empty_training_text():
    with pytest.raises(DataError, match="empty"):
        train_byte_bpe([], 300)


def test_fingerprint_tells_what_encodes_differently(bpe, tmp_path):
    bpe.save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint() == bpe.fingerprint()
    other = train_byte_bpe([TEXT], bpe.vocab_size - 1, SPECIAL, pattern=bpe.pattern, names=bpe.names)
    assert other.fingerprint() != bpe.fingerprint()


def spoil(tmp_path, change):
    train_byte_bpe([TEXT], 300, SPECIAL).save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    spec = json.loads(path.read_text(encoding="utf-8"))
    change(spec)
    path.write_text(json.dumps(spec), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["model"]["vocab"].update(a=5), "belongs to both"),
        (lambda s: s["model"]["vocab"].update(new=2**40), "a whole number below"),
        (lambda s: s["model"]["vocab"].update(new=-1), "a whole number below"),
        (lambda s: s["model"]["vocab"].update(new="7"), "a whole number below"),
        (lambda s: s["model"]["vocab"].update(new=True), "a whole number below"),
        (lambda s: s["model"]["vocab"].pop("a"), "needs 'a', which is not in the vocabulary"),
        (lambda s: s["model"].update(vocab=[]), "dict is expected"),
        (lambda s: s["model"].pop("vocab"), "no `vocab`"),
        (lambda s: s["model"].update(vocab={}), "not in the vocabulary"),
        (lambda s: s["model"]["merges"].append(["zz", "qq"]), "not in the vocabulary"),
        (lambda s: s["model"]["merges"].append("a b c"), "two symbols"),
        (lambda s: s["model"]["merges"].append(7), "two symbols"),
        (lambda s: s["added_tokens"].append(s["added_tokens"][0]), "listed twice"),
        (lambda s: s["added_tokens"][0].update(id=3), "but the vocabulary gives it"),
        (lambda s: s["added_tokens"].append([]), "an object is expected"),
        (lambda s: s.pop("model"), "no `model`"),
    ],
)
def test_damaged_files_are_refused(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(spoil(tmp_path, change))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": {"vocab": {"a": 1, "a": 2}}}', b"[" * 10**5]
)
def test_what_is_no_tokenizer_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError):
        load_tokenizer(tmp_path)


def test_missing_files_are_named(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"(?i)found:? weights\.bin"):
        load_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "nowhere")


def test_pattern_is_for_files_that_lack_one(tmp_path):
    train_byte_bpe([TEXT], 300).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="leave `pattern` off"):
        load_tokenizer(tmp_path, pattern="gpt4")


def test_merges_file_faults(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({symbol: i for i, symbol in enumerate(ALPHABET)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b c\n")
    with pytest.raises(CheckpointError, match="line 2"):
        load_tokenizer(tmp_path)
