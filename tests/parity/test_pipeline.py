"""Tokenizers that tokenizer.json describes, part by part, against the `tokenizers` library."""

# ruff: noqa: E501
import json

import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.tokenizers.byte_bpe import ByteBPE
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.pipeline.parts import Part
from groundup.tokenizers.pipeline.pipeline import Pipeline
from groundup.tokenizers.pipeline.reading import read_pipeline
from groundup.tokenizers.streaming import StreamDecoder
from nasty_corpus import nasty_lines
from tokenizer_stacks import FOREIGN, OLD_CHARACTERS, PROSE, STACKS, stack

NAMES = sorted(STACKS)
OLD = st.sampled_from(OLD_CHARACTERS)
LIKELY = st.sampled_from(
    [
        *" \n\t\r'sSdtTmlvreE019.,!<|>_-aZéß中文▁Ġ#\u017f\u00a0\u200b\u200d\u0301\u0323\u2028\x1c\x85İΣς\u0661\x00\ufffd",
        *(
            "🙂",
            "  ",
            "'ll",
            "<s>",
            "</s>",
            "[SEP]",
            "<mask>",
            "<|endoftext|>",
            "<|user|>",
            "가",
            "\u1100\u1161",
            "ﬁ",
            "word",
        ),
    ]
)
TEXTS = st.text(OLD, max_size=40) | st.lists(LIKELY, max_size=40).map("".join)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

_loaded: dict = {}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """name -> (ours, the library's): ours read from the file that the library wrote."""

    def make(name):
        if name not in _loaded:
            path = tmp_path_factory.mktemp(name) / "tokenizer.json"
            stack(name).save(str(path))
            _loaded[name] = load_tokenizer(path), tokenizers.Tokenizer.from_file(str(path))
        return _loaded[name]

    return make


@pytest.fixture(scope="module")
def lines(shared):
    return nasty_lines(shared, 10_000)


def check(ours, reference, text):
    """Ids, offsets, tokens and decoding of one text are the library's."""
    theirs = reference.encode(text, add_special_tokens=False)
    encoding = ours.encode_offsets(text, allowed_special=True)
    assert encoding.ids == theirs.ids, text
    assert ours.encode(text, allowed_special=True) == theirs.ids, text
    assert encoding.offsets == theirs.offsets, text
    assert [ours.token(number) for number in theirs.ids] == [reference.id_to_token(number) for number in theirs.ids]
    assert ours.decode(theirs.ids) == reference.decode(theirs.ids, skip_special_tokens=False), text
    assert ours.decode(theirs.ids, skip_special=True) == reference.decode(theirs.ids), text


@pytest.mark.row("TOK-17", reference="tokenizers")
@pytest.mark.parametrize("name", NAMES)
def test_ids_offsets_and_text_are_the_librarys(pair, lines, name):
    ours, reference = pair(name)
    for line in [FOREIGN, *lines[:80]]:
        check(ours, reference, line)


@pytest.mark.slow
@pytest.mark.row("TOK-17", reference="tokenizers")
@pytest.mark.parametrize("name", NAMES)
def test_ids_offsets_and_text_are_the_librarys_on_all_lines(pair, lines, name):
    ours, reference = pair(name)
    for line in lines:
        check(ours, reference, line)


@pytest.mark.row("TOK-17", reference="tokenizers")
@pytest.mark.parametrize("name", NAMES)
@QUICK
@given(text=TEXTS)
def test_any_text(pair, name, text):
    check(*pair(name), text)


@pytest.mark.row("TOK-17", reference="tokenizers")
@pytest.mark.parametrize("name", NAMES)
def test_what_we_write_the_library_reads(pair, lines, name, tmp_path):
    ours, reference = pair(name)
    ours.save_pretrained(tmp_path)
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    again = load_tokenizer(tmp_path)
    assert again.fingerprint() == ours.fingerprint()
    assert type(again) is type(ours)
    for line in [FOREIGN, *lines[:60]]:
        theirs, expected = saved.encode(line), reference.encode(line)
        assert (theirs.ids, theirs.offsets) == (expected.ids, expected.offsets)
        assert saved.decode(theirs.ids) == reference.decode(theirs.ids)
        assert again.encode(line) == ours.encode(line)


@pytest.mark.row("TOK-17", reference="tokenizers")
@pytest.mark.parametrize("name", NAMES)
def test_special_tokens_around_one_text_and_two(pair, lines, name):
    ours, reference = pair(name)
    for one, other in zip(lines[:40], lines[40:80], strict=True):
        for texts in ((one,), (one, other)):
            theirs = reference.encode(*texts)
            made = ours.encode_with_special(*texts, allowed_special=True)
            assert (made.ids, made.offsets) == (theirs.ids, theirs.offsets)
            assert made.type_ids == theirs.type_ids


@pytest.mark.parametrize("name", NAMES)
def test_text_never_becomes_a_control_token(pair, name):
    """The library's nearest is `encode_special_tokens`; its models may still make control tokens of their spelling."""
    ours, reference = pair(name)
    control = {number for number in ours.special_tokens.values() if number != unknown_id(ours)}
    for text in ["".join(f" {token}{token} x" for token in ours.special_tokens), *ours.special_tokens, PROSE[:2000]]:
        ids = ours.encode(text)
        assert control.isdisjoint(ids)
        assert ours.encode_offsets(text).ids == ids
        reference.encode_special_tokens = True
        theirs = reference.encode(text, add_special_tokens=False).ids
        reference.encode_special_tokens = False
        if control.isdisjoint(theirs):
            assert ids == theirs


def unknown_id(tokenizer):
    model = getattr(tokenizer, "model", None)
    unknown = getattr(model, "unk", None)
    return getattr(model, "unk_id", None) if unknown is None else tokenizer.id(unknown)


@pytest.mark.parametrize("name", NAMES)
def test_streaming_gives_the_whole_text(pair, lines, name):
    ours, _ = pair(name)
    for line in [FOREIGN, *lines[:30]]:
        ids = ours.encode(line)
        for skip in (False, True):
            stream = StreamDecoder(ours, skip_special=skip)
            streamed = "".join([*map(stream.push, ids), stream.finish()])
            assert streamed == ours.decode(ids, skip_special=skip)


@pytest.mark.parametrize("name", NAMES)
def test_begin_and_end_are_those_of_the_file(pair, name):
    ours, reference = pair(name)
    around = reference.encode("x").ids
    inside = reference.encode("x", add_special_tokens=False).ids
    if around != inside and len(around) <= len(inside) + 2:
        before, after = around[0] != inside[0], around[-1] != inside[-1]
        assert ours.encode("x", bos=before, eos=after) == around
    assert ours.encode("x") == inside


@pytest.mark.row("TOK-17", reference="tokenizers")
def test_characters_that_bpe_without_an_unknown_token_drops(tmp_path):
    """Ids are the library's; the library's later offsets slide, ours stay inside of the text."""
    spec = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])).to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    reference, ours = tokenizers.Tokenizer.from_str(json.dumps(spec)), load_tokenizer(tmp_path)
    for text in ("ab?ab", "?", "a?b", "好ab好", ""):
        assert ours.encode(text) == reference.encode(text).ids
    assert ours.encode_offsets("ab?ab").offsets == [(0, 2), (2, 5)]


@pytest.mark.row("TOK-17", reference="tokenizers")
def test_merges_across_visible_spaces(tmp_path):
    """A long word is merged word by word only where no token has a space inside."""
    vocab = {"▁": 0, "a": 1, "b": 2, "a▁": 3, "a▁b": 4, "?": 5}
    model = tokenizers.models.BPE(vocab, [("a", "▁"), ("a▁", "b")], unk_token="?")
    reference = tokenizers.Tokenizer(model)
    reference.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    for text in ("a▁b" * 60, "a▁▁b" * 60, "ba▁" * 60):
        assert ours.encode(text) == reference.encode(text).ids


@pytest.mark.row("TOK-17", reference="tokenizers")
def test_gpt_neox_both_ways(shared, lines):
    """The real 20B vocabulary: the fast class, and the same file part by part."""
    path = shared / "tokenizers" / "gpt-neox-20b.json"
    reference = tokenizers.Tokenizer.from_file(str(path))
    fast = load_tokenizer(path)
    pipeline = read_pipeline(Part(json.loads(path.read_text(encoding="utf-8")), "gpt-neox-20b"))
    assert isinstance(fast, ByteBPE)
    assert isinstance(pipeline, Pipeline)
    assert reference.get_vocab_size() == 50277 == fast.vocab_size == pipeline.vocab_size
    for line in lines[:300]:
        check(fast, reference, line)
        check(pipeline, reference, line)


@pytest.mark.slow
@pytest.mark.row("TOK-17", reference="tokenizers")
def test_gpt_neox_on_all_lines(shared, lines):
    path = shared / "tokenizers" / "gpt-neox-20b.json"
    reference, fast = tokenizers.Tokenizer.from_file(str(path)), load_tokenizer(path)
    for line in lines:
        check(fast, reference, line)


LONG = {
    "letters": "a",
    "spaces": " ",
    "marks": "\u0301",
    "two kinds of marks": "\u0301\u0323",
    "letters with marks": "e\u0323\u0301",
    "ideographs": "好",
    "digits": "1",
    "signs": "!",
    "lines": "\n",
    "emoji": "👍🏿\u200d",
    "words": "don't stop ",
    "visible spaces": "▁",
    "control": "<s></s><|endoftext|>[SEP]",
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_long_texts_of_one_kind_take_linear_time(pair, name):
    """A million letters and spaces, 1e5 characters of the other kinds: a quadratic step would take hours."""
    ours, _ = pair(name)
    for unit in LONG.values():
        size = 1_000_000 if unit in "a " else 100_000
        text = unit * (size // len(unit))
        ids = ours.encode(text)
        assert ids or not ours.encode(unit * 3)


@pytest.mark.parametrize("name", NAMES)
def test_longer_texts_of_one_kind(pair, name):
    """The same ids, offsets included, as the library's on texts that are long enough for every shortcut."""
    ours, reference = pair(name)
    for unit in LONG.values():
        text = unit * (3000 // len(unit))
        theirs = reference.encode(text, add_special_tokens=False)
        made = ours.encode_offsets(text, allowed_special=True)
        assert (made.ids, made.offsets) == (theirs.ids, theirs.offsets)
