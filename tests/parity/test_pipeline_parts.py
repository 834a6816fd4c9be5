"""Normalizers, patterns, decoders and added tokens one by one, against the `tokenizers` library."""

import base64
import contextlib
import itertools
import json
import struct
import unicodedata

import pytest
import tokenizers
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import normalizers as library_normalizers

from groundup.base.errors import CheckpointError
from groundup.tokenizers.pipeline.charsmap import CharsMap
from groundup.tokenizers.pipeline.decoders import read_decoder
from groundup.tokenizers.pipeline.normalizers import read_normalizer
from groundup.tokenizers.pipeline.oniguruma import compile_pattern, translate
from groundup.tokenizers.pipeline.parts import Part
from groundup.tokenizers.pipeline.pre_tokenizers import read_pre_tokenizer, split
from groundup.tokenizers.pipeline.reading import read_pipeline
from groundup.tokenizers.sentencepiece.tokenizer import SentencePiece
from tokenizer_stacks import OLD_CHARACTERS, charsmap, precompiled

OLD = st.sampled_from(OLD_CHARACTERS)
MARKS = st.sampled_from(
    [*"aeo\u0301\u0323\u0327\u0344\u0f71\u0f72\u0f73\u1100\u1161\u11a8가ệÅé\u212bﬁ①", "\u0300\u0301", " "]
)
TEXTS = st.text(OLD, max_size=30) | st.lists(MARKS, max_size=24).map("".join)
QUICK = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))

NORMALIZERS = {
    "NFC": library_normalizers.NFC(),
    "NFD": library_normalizers.NFD(),
    "NFKC": library_normalizers.NFKC(),
    "NFKD": library_normalizers.NFKD(),
    "Lowercase": library_normalizers.Lowercase(),
    "StripAccents": library_normalizers.StripAccents(),
    "Nmt": library_normalizers.Nmt(),
    "ByteLevel": library_normalizers.ByteLevel(),
    "Strip": library_normalizers.Strip(),
    "StripLeft": library_normalizers.Strip(left=True, right=False),
    "Prepend": library_normalizers.Prepend("ab"),
    "Replace": library_normalizers.Replace("a", "xyz"),
    "Replace by nothing": library_normalizers.Replace("a", ""),
    "Replace anywhere": library_normalizers.Replace(Regex("a*"), "-"),
    "Replace at the start": library_normalizers.Replace(Regex("^"), "▁"),
    "Replace spaces": library_normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " "),
    "Bert": library_normalizers.BertNormalizer(),
    "Bert cased": library_normalizers.BertNormalizer(lowercase=False),
    "Bert accents": library_normalizers.BertNormalizer(strip_accents=False),
    "nmt_nfkc": precompiled("nmt_nfkc"),
    "nmt_nfkc_cf": precompiled("nmt_nfkc_cf"),
    "nfkc": precompiled("nfkc"),
    "several": library_normalizers.Sequence(
        [
            library_normalizers.NFKD(), library_normalizers.StripAccents(), library_normalizers.Replace("e", "ee"),
            library_normalizers.NFC(), library_normalizers.Prepend("▁"), library_normalizers.Lowercase(),
        ]
    ),
}  # fmt: skip


def settings_of(library):
    """The part as it stands in a file."""
    return Part(json.loads(library.__getstate__()), "part")


def letters(normalizer):
    """A tokenizer whose tokens are characters, so that its offsets tell where each character of the text stems from."""
    made = tokenizers.Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return made, read_pipeline(Part(json.loads(made.to_str()), "letters"))


MADE = {name: letters(normalizer) for name, normalizer in NORMALIZERS.items()}


@pytest.mark.row("TOK-17", reference="tokenizers")
@pytest.mark.parametrize("name", list(NORMALIZERS))
@QUICK
@given(text=TEXTS)
@example("ΟΔΥΣΣΕΥΣ Σ")
@example("İ I ß ẞ ǅ")
@example("\r\n\t a \x00\x7f\u200b\u2028\ufeff\ufffd")
@example("e\u0323\u0301 \u0344\u0323 \u0f71\u0f74")
@example("\u1100\u1161\u11a8 가\u11a8")
@example(" \u3000 ｱﾊﾟ ㌀ ㍿")
@example("")
def test_normalizers_and_where_their_characters_come_from(name, text):
    theirs, ours = MADE[name]
    normalizer = ours.normalizer
    expected = NORMALIZERS[name].normalize_str(text)
    assert normalizer.apply(text) == expected
    traced, sources = normalizer.trace(text)
    assert traced == expected
    assert len(sources) == len(expected)
    assert ours.encode_offsets(text).offsets == theirs.encode(text).offsets


PATTERNS = {
    r"\s+|\S": "plain",
    r"^\w|\w$": "ends of lines",
    r"a.b|.": "a dot stops at a line end",
    r"(?m:a.b)": "flag m is other readers' s",
    r"(?i)ab|c(?-i:d)": "a flag on its own",
    r"x(?:(?i)y|z)w": "a flag on its own in a group",
    r"a{1,2}+b": "an interval is never possessive",
    r"(?:ab){2}?": "an exact interval may be absent",
    r"a{,2}b": "an interval from 0",
    r"a{x|{": "braces that are no interval",
    r"[a-z&&[^aeiou]]+": "intersection",
    r"[a[0-9]b]+": "union",
    r"[^[:alpha:]\s]+": "POSIX brackets",
    r"[\h]+|\H": "hexadecimal digits",
    r"\R|\d": "line ends",
    r"a\z|b\Z|\Aa": "ends of the text",
    r"\p{^L}+": "negated property",
    r"[\w-]+": "word characters in a class",
    r"[\W]+": "others in a class",
    r"[\[\]a]+|[|~&]": "brackets and signs in a class",
    r"\x{61}\x62": "code points",
    r"(?<n>a)b(?#comment)c": "names and comments",
    r"a++|b*+c|(?>d|de)f": "possessive and atomic",
    r"a(?=b)|(?<=b)a|(?<!a)b(?!b)": "looking around",
    r"\X": "grapheme clusters",
    r"x*": "empty matches",
    r"\s+(?!\S)|\s+$|\s+": "GPT-2's end",
}


@pytest.mark.row("TOK-17", reference="tokenizers")
@pytest.mark.parametrize("pattern", list(PATTERNS), ids=list(PATTERNS.values()))
@QUICK
@given(text=st.text("abcdexyzABCDe01F \n\r\t-_&|~[]{}²½é\u0301\u200d好", max_size=24))
@example("a\nb\n")
@example("aab ab\nAB cD cd\n\n")
@example("aaab aab")
def test_regular_expressions_mean_what_oniguruma_means(pattern, text):
    behaviors = ("isolated", "removed", "merged_with_next")
    for behavior in behaviors:
        library = pre_tokenizers.Split(Regex(pattern), behavior)
        ours = read_pre_tokenizer(settings_of(library))
        assert split(ours.steps(), text, True) == [piece for piece, _ in library.pre_tokenize_str(text)]


@pytest.mark.row("TOK-17", reference="tokenizers")
def test_classes_of_all_old_characters():
    """Every character of the basic plane that Unicode 8 knew, in the classes that patterns ask for."""
    codes = [*range(0x0, 0x61D), *range(0x61E, 0x7FD), *range(0x900, 0x9FC), *range(0x2000, 0x2065)]
    text = "".join(character for character in map(chr, codes) if unicodedata.category(character) != "Cn")
    for name in (
        r"\w",
        r"\s",
        r"\d",
        r"\p{L}",
        r"\p{N}",
        r"\p{P}",
        r"\p{S}",
        r"\p{M}",
        r"\p{Lu}",
        r"\p{Z}",
        r"\p{Han}",
    ):
        known = [piece for piece, _ in pre_tokenizers.Split(Regex(name), "removed", True).pre_tokenize_str(text)]
        assert compile_pattern(name).findall(text) == known, name
    for library in (
        pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(), pre_tokenizers.BertPreTokenizer(),
        pre_tokenizers.Punctuation(), pre_tokenizers.Digits(), pre_tokenizers.UnicodeScripts(),
    ):  # fmt: skip
        ours = read_pre_tokenizer(settings_of(library))
        assert split(ours.steps(), text, True) == [piece for piece, _ in library.pre_tokenize_str(text)]


def test_published_patterns_stand_as_they_are():
    from groundup.tokenizers.pretokenize import PATTERNS as PUBLISHED

    for pattern in PUBLISHED.values():
        assert translate(pattern) == pattern


DECODERS = {
    "ByteLevel": decoders.ByteLevel(),
    "WordPiece": decoders.WordPiece(),
    "WordPiece as it is": decoders.WordPiece("@@", False),
    "Metaspace": decoders.Metaspace(),
    "Metaspace never": decoders.Metaspace("▁", "never"),
    "BPEDecoder": decoders.BPEDecoder("</w>"),
    "ByteFallback": decoders.ByteFallback(),
    "Fuse": decoders.Fuse(),
    "Strip": decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 2, 1)]),
    "Replace": decoders.Replace("▁", " "),
    "Replace by pattern": decoders.Replace(Regex("a+|$"), "_"),
    "CTC": decoders.CTC(),
    "CTC as it is": decoders.CTC("a", "b", False),
    "Llama": decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
}
TOKENS = st.lists(
    st.sampled_from(
        [
            *(
                "a",
                "b",
                "|",
                ".",
                " ",
                "▁",
                "▁a",
                "##b",
                "@@c",
                "a</w>",
                "</w>",
                "<0xE4>",
                "<0xB8>",
                "<0xAD>",
                "<0x41>",
            ),
            *(
                "<0x+A>",
                "<0xGG>",
                "Ġa",
                "ä",
                "好",
                "<pad>",
                " .",
                " n't",
                "do not",
                " do not",
                "'s",
                "Ã¤",
                "  a  ",
                "é",
            ),
        ]
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.row("TOK-17", reference="tokenizers")
@pytest.mark.parametrize("name", list(DECODERS))
@QUICK
@given(tokens=TOKENS)
def test_decoders(name, tokens):
    if name == "Strip" and len("".join(tokens).strip(" ")) < 2:
        return  # the library panics where nothing, or one character, is left to strip from
    ours = read_decoder(settings_of(DECODERS[name]))
    assert "".join(ours.chain(list(tokens))) == DECODERS[name].decode(tokens)
    assert ours.to_json() == json.loads(DECODERS[name].__getstate__())


FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


@pytest.mark.row("TOK-17", reference="tokenizers")
@QUICK
@given(
    st.lists(st.tuples(st.sampled_from(["ab", "abc", "b c", "<s>", " a", "  ", "É"]), st.sets(st.sampled_from(FLAGS)))),
    st.text("abc <s>éÉE\n_-", max_size=24),
    st.booleans(),
)
@example([("<s>", {"lstrip", "rstrip", "special"}), ("  ", set())], "a  <s>   <s> b", True)
@example([("ab", {"single_word"}), ("abc", {"special"})], "ab abc xab ab", False)
def test_flags_of_added_tokens(tokens, text, special):
    made = tokenizers.Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.normalizer = library_normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    seen = set()
    for content, flags in tokens:
        if content.lower() not in seen:
            made.add_tokens([AddedToken(content, **{flag: flag in flags for flag in FLAGS})])
        seen.add(content.lower())
    ours = read_pipeline(Part(json.loads(made.to_str()), "flags"))
    made.encode_special_tokens = not special
    theirs, encoding = made.encode(text), ours.encode_offsets(text, allowed_special=special)
    assert (encoding.ids, encoding.offsets) == (theirs.ids, theirs.offsets)
    assert ours.encode(text, allowed_special=special) == theirs.ids


@pytest.mark.row("TOK-17", reference="sentencepiece")
@pytest.mark.parametrize("rule", ["nmt_nfkc", "nmt_nfkc_cf", "nfkc", "nfkc_cf"])
def test_the_table_of_replacements_holds_the_rule(rule):
    """Every character of the basic plane, against the library that wrote the table."""
    import sentencepiece

    found = CharsMap(base64.b64decode(charsmap(rule)))
    normalizer = sentencepiece.SentencePieceNormalizer(
        rule_name=rule, add_dummy_prefix=False, escape_whitespaces=False, remove_extra_whitespaces=False
    )
    for code in [*range(1, 0xD800), *range(0xE000, 0x10000)]:
        character = chr(code)
        ours = found.shortest(character.encode("utf-8"))
        assert (character if ours is None else ours) == normalizer.Normalize(character), hex(code)


def double_array(rules, scaled):
    """A table of replacements whose offsets are all multiples of 256, written so (bit 9) or in full."""
    texts, root, units, blocks = b"", {}, {}, itertools.count(1)
    for key, new in rules.items():
        node = root
        for byte in key.encode("utf-8"):
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += new.encode("utf-8") + b"\0"

    def place(unit, node):
        base = next(blocks) << 8 | unit & 255
        offset = unit ^ base
        units[unit] |= (offset >> 8 << 10 | 1 << 9 if scaled else offset << 10) | (0 in node) << 8
        for byte, below in node.items():
            units[base ^ byte] = byte or 1 << 31 | below
            if byte:
                place(base ^ byte, below)

    units[0] = 0
    place(0, root)
    row = [units.get(unit, 0) for unit in range((max(units) | 255) + 1)]
    return struct.pack(f"<I{len(row)}I", 4 * len(row), *row) + texts


@pytest.mark.row("TOK-17", reference="tokenizers, sentencepiece")
@pytest.mark.parametrize("scaled", [True, False])
def test_far_children_are_found(scaled):
    """Offsets of 2**21 units and more are only written times 256."""
    import sentencepiece

    from groundup.tokenizers.formats.sentencepiece_proto import ModelFile, NormalizerSpec, Piece, PieceType

    rules = {"a": "12", "ab": "3", "abcd": "", "é": "e", "日": "day ", "日本": "Japan"}
    data = double_array(rules, scaled)
    table = CharsMap(data)
    assert dict(table.rules()) == rules
    for key, new in rules.items():
        assert table.longest(f"x{key}", 1) == (len(key), new)
    assert table.shortest(b"abcd") == "12"
    # A NUL, which ends keys inside the table, is a character like others in a text.
    assert table.longest("abc\0d", 0) == (2, "3")
    text = "xa abc abcd é 日本日 ba"
    assert {1, 3, 7, 12, 14, 16, 19} <= {match.start() for match in table.starts.finditer(text)}
    theirs = library_normalizers.Precompiled(data)
    assert precompiled_of(data).apply(text) == theirs.normalize_str(text)
    spec = NormalizerSpec("own", data, add_dummy_prefix=False, remove_extra_whitespaces=False)
    pieces = [Piece("<unk>", 0.0, PieceType.UNKNOWN), *(Piece(c, -1.0) for c in sorted(set("▁12345eJapndyxbc")))]
    file = ModelFile(pieces, normalizer=spec)
    reference = sentencepiece.SentencePieceProcessor(model_proto=file.to_bytes())
    assert SentencePiece(file).normalizer(text) == reference.Normalize(text)


def test_a_rule_without_its_replacement_is_damage():
    data = double_array({"a": "b"}, True)
    assert dict(CharsMap(data).rules()) == {"a": "b"}
    (size,) = struct.unpack_from("<I", data)
    row = struct.unpack_from(f"<{size // 4}I", data, 4)
    units = struct.pack(f"<I{len(row)}I", size, *(unit & 0x7FFFFFFF for unit in row))
    with pytest.raises(CheckpointError, match="a rule has no replacement"):
        CharsMap(units + data[4 + size :]).longest("a", 0)


def precompiled_of(data):
    settings = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}
    return read_normalizer(Part(settings, "part"))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x01", b"\xff\xff\xff\xff", b"\x08\0\0\0" + b"\0" * 4, b"\x03\0\0\0" + b"\0" * 8, b"\0\0\0\0"],
)
def test_tables_cut_short_are_refused(data):
    with pytest.raises(CheckpointError, match="precompiled_charsmap"):
        CharsMap(data)


@QUICK
@given(st.binary(max_size=200), st.binary(min_size=1, max_size=6))
def test_tables_of_noise_are_bounded(noise, key):
    size = len(noise) // 8 * 4
    if size:
        table = CharsMap(size.to_bytes(4, "little") + noise)
        with contextlib.suppress(CheckpointError):
            table.shortest(key)


@pytest.mark.parametrize("part", [*NORMALIZERS.values()], ids=list(NORMALIZERS))
def test_normalizers_are_written_as_read(part):
    settings = json.loads(part.__getstate__())
    assert read_normalizer(Part(settings, "part")).to_json() == settings
