"""SentencePiece files that are damaged or hostile, and texts that are long: clear errors, bounded time."""

import contextlib
import json
import random
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from groundup.base.errors import CheckpointError, DataError, GroundupError, UsageError
from groundup.tokenizers.chat.render import render_chat
from groundup.tokenizers.extension import add_tokens
from groundup.tokenizers.formats import protobuf, sentencepiece_model
from groundup.tokenizers.formats.sentencepiece_proto import ModelFile, NormalizerSpec, Piece, PieceType, TrainerSpec
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.pipeline.charsmap import CharsMap
from groundup.tokenizers.registry import SentencePieceConfig
from groundup.tokenizers.sentencepiece.pieces import PieceRules, covered, split_words
from groundup.tokenizers.sentencepiece.text import Normalizer
from groundup.tokenizers.sentencepiece.tokenizer import SentencePiece, utf8
from groundup.tokenizers.training.charsmap_compiler import write_rules
from groundup.tokenizers.training.nmt_nfkc import compiled_rules
from groundup.tokenizers.training.score_bpe import _Learner, learn_score_bpe
from groundup.tokenizers.training.sentencepiece import SentencePieceSettings, train_sentencepiece

RULES = {"a": "b", "ab": "xyz", "é": "e", "e\u0301": "e", "\u0301": "", "中文": "ab", "\U0001d400": "A", "ﬁ": "fi"}


def model(kind=1, byte_fallback=False, rules=RULES, **spec) -> ModelFile:
    pieces = [Piece("<unk>", 0.0, 2), Piece("<s>", 0.0, 3), Piece("</s>", 0.0, 3)]
    pieces += [Piece(piece, -float(i)) for i, piece in enumerate(["▁", "a", "aa", "aaaa", "b", "xy", "z", "▁ab", "e"])]
    if byte_fallback:
        pieces += [Piece(f"<0x{byte:02X}>", 0.0, int(PieceType.BYTE)) for byte in range(256)]
    trainer = TrainerSpec(model_type=kind, byte_fallback=byte_fallback)
    return ModelFile(pieces, trainer, NormalizerSpec("own", write_rules(rules), **spec))


@pytest.mark.row("TOK-16", reference="property")
def test_any_part_of_a_file_is_read_or_refused(tmp_path):
    data = model(byte_fallback=True).to_bytes()
    assert ModelFile.parse(data, "m").to_bytes() == data
    for end in range(0, len(data), 5):
        read_or_refuse(data[:end])
    generator = random.Random(0)
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(data))] = generator.randrange(256)
        read_or_refuse(bytes(damaged))
    path = tmp_path / "cut.model"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"cut\.model"):
        sentencepiece_model.read(path)


def read_or_refuse(data: bytes) -> None:
    with contextlib.suppress(GroundupError):
        tokenizer = SentencePiece(ModelFile.parse(data, "damaged.model"))
        tokenizer.decode(tokenizer.encode("aab ab 中文 é \U0001d400"))


@settings(deadline=None)
@given(data=st.binary(max_size=300))
@example(b"\x0a" * 200)
@example(b"\xff" * 50)
@example(struct.pack("<B", 0x0A) + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
def test_arbitrary_bytes(data):
    read_or_refuse(data)


def test_claims_beyond_the_file_allocate_nothing():
    field = protobuf.write_field
    nested = b""
    for _ in range(20_000):
        nested = field(1, protobuf.BYTES, nested)[:200]
    with pytest.raises(CheckpointError):
        ModelFile.parse(field(1, 2, nested), "m")
    with pytest.raises(CheckpointError, match="claims 1,099,511,627,776 bytes"):
        ModelFile.parse(bytes([0x0A]) + protobuf._write_varint(2**40), "m")
    with pytest.raises(CheckpointError, match="wire type 3"):
        ModelFile.parse(bytes([0x0B, 0x0C]), "m")
    with pytest.raises(CheckpointError, match="more than 10 bytes"):
        ModelFile.parse(bytes([0x08]) + b"\x80" * 11, "m")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pieces.append(Piece("a", -1.0)), "as is piece 4"),
        (lambda m: m.pieces.append(Piece("", -1.0)), "is empty"),
        (lambda m: m.pieces.append(Piece("q", float("nan"))), "finite"),
        (lambda m: m.pieces.append(Piece("q", 0.0, 9)), "type 9"),
        (lambda m: m.pieces.append(Piece("q", 0.0, 2)), "UNKNOWN, found 2"),
        (lambda m: m.pieces.append(Piece("<0x00>", 0.0, 6)), "byte_fallback is off"),
        (lambda m: setattr(m.trainer, "byte_fallback", True), "256 byte pieces"),
        (lambda m: setattr(m.trainer, "model_type", 7), "model_type 7"),
        (lambda m: m.pieces.clear(), "no pieces"),
    ],
)
def test_inconsistent_files(change, message):
    wrong = model()
    change(wrong)
    with pytest.raises(CheckpointError, match=message):
        ModelFile.parse(wrong.to_bytes(), "m")


@pytest.mark.parametrize("number", [-(2**31), -(2**31) + 1, -1, 0, 2**31 - 1])
def test_numbers_at_the_border_of_32_bits(number):
    assert TrainerSpec.read(TrainerSpec(pad_id=number).write(), "m").pad_id == number
    # A negative one has 10 bytes; the low half alone is read as well.
    for value in (number, number & 0xFFFFFFFF):
        assert TrainerSpec.read(protobuf.write_field(43, protobuf.VARINT, value), "m").pad_id == number


@pytest.mark.parametrize("missing", [1, 3, 6])
def test_a_last_field_that_is_cut_off_is_seen(missing):
    """Also where it claims no more bytes than the file has."""
    for wire, value in ((protobuf.BYTES, b"abcdef"), (protobuf.FIXED64, b"abcdefgh")):
        data = protobuf.write_field(9, protobuf.BYTES, b"before") + protobuf.write_field(1, wire, value)
        assert [found[2] for found in protobuf.fields(data, "m")] == [b"before", value]
        with pytest.raises(CheckpointError, match=f"field 1 claims {len(value)} bytes, but {len(value) - missing} are"):
            list(protobuf.fields(data[:-missing], "m"))


def test_unknown_fields_are_kept():
    data = model().to_bytes() + protobuf.write_field(250, protobuf.BYTES, b"extension")
    assert ModelFile.parse(data, "m").to_bytes() == data


@given(rules=st.dictionaries(st.text("ab\u0301é中\U0001d400", min_size=1, max_size=4), st.text("xyé", max_size=3)))
@settings(deadline=None)
def test_rules_are_written_and_read(rules):
    data = write_rules(rules)
    if rules:
        assert CharsMap(data).rules() == rules
        for source, target in rules.items():
            assert CharsMap(data).longest(source, 0) == (len(source), target)
    else:
        assert data == b""


def test_damaged_rules():
    data = write_rules(RULES)
    generator = random.Random(1)
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 6)):
            damaged[generator.randrange(len(data))] = generator.randrange(256)
        for part in (damaged, damaged[: generator.randrange(len(data))]):
            with contextlib.suppress(CheckpointError):
                CharsMap(bytes(part)).rules()
    with pytest.raises(CheckpointError, match="the trie claims"):
        CharsMap(data[:500])


@pytest.mark.row("TOK-15", reference="hand calculation")
def test_normalization_by_hand():
    spec = NormalizerSpec("", write_rules({"\t": " ", "x": "", "ab": "c", "a": "A"}))
    assert Normalizer(spec)("  aab  \tx b ") == "▁Ac▁b"
    assert Normalizer(spec)(" \t ") == ""
    assert Normalizer(spec, suffix=True)("a  b") == "A▁b▁"
    plain = NormalizerSpec("", spec.precompiled_charsmap, remove_extra_whitespaces=False)
    assert Normalizer(plain)(" ab ") == "▁▁c▁"
    assert Normalizer(plain)("") == ""
    assert Normalizer(plain, ["ab", "xx"])("abxxx") == "▁abxx"
    nmt = Normalizer(NormalizerSpec("", compiled_rules("nmt_nfkc")))
    assert nmt("ﬁ①\u200b\uff21\x07か\u3099 \u1100\u1161\u11a8\uff5e") == "▁fi1▁Aが▁각\uff5e"


@pytest.mark.row("TOK-16", reference="property")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_long_texts_take_linear_time(kind):
    tokenizer = SentencePiece(model(kind, byte_fallback=True, rules={"\t": " "}))
    for text in ("a" * 1_000_000, "e" + "\u0301" * 100_000, " " * 1_000_000, "a " * 200_000):
        tokenizer.decode(tokenizer.encode(text))
    nmt = Normalizer(NormalizerSpec("", compiled_rules("nmt_nfkc")))
    assert len(nmt("e" + "\u0301" * 100_000)) == 100_001


def test_bytes_that_are_not_utf8():
    assert utf8(b"a\xe4\xb8b\xff\xe4\xb8\xad") == "a\ufffd\ufffdb\ufffd中"
    assert utf8(b"\xff" * 100_000) == "\ufffd" * 100_000


@pytest.mark.row("TOK-15", reference="hand calculation")
def test_which_substrings_may_be_pieces():
    rules = PieceRules()
    assert rules("▁the")
    assert rules("東京タワー")
    assert not rules("the▁")
    assert not rules("a1")
    assert not rules("aж")
    assert not rules("▁▁")
    assert not rules("a" * 17)
    assert rules("12")
    assert not PieceRules(digits_apart=True)("12")
    assert PieceRules(by_script=False)("a1")
    assert PieceRules(by_number=False)("a1")
    assert PieceRules(by_whitespace=False)("of▁the")
    assert PieceRules(only_spaces=True)("▁▁▁")
    assert PieceRules(suffix=True)("the▁")
    assert split_words("▁a▁▁b", rules) == ["▁a", "▁", "▁b"]
    assert split_words("▁a▁▁b", PieceRules(only_spaces=True)) == ["▁a", "▁▁b"]
    assert split_words("a▁▁b", PieceRules(suffix=True)) == ["a▁", "▁", "b"]
    # 6 of 10 is less than 0.9, 9 of 10 is enough.
    assert covered({"a": 6, "b": 3, "c": 1}, 0.9) == ["a", "b"]


@pytest.mark.row("TOK-15", reference="hand calculation")
def test_bpe_merges_by_hand():
    # ab 7 times, bc and abc's other pair less; of equals the shorter, then the first in the alphabet.
    assert learn_score_bpe({"abc": 4, "abe": 3, "bc": 2}, 9, bool) == ["ab", "abc", "abe", "bc"]
    assert learn_score_bpe({"aaaa": 1}, 9, bool) == ["aa", "aaaa"]
    assert learn_score_bpe({"abc": 4, "abe": 3}, 9, lambda piece: "c" not in piece) == ["ab", "abe"]
    learner = _Learner({"ab": 5, "cd": 2}, bool)
    learner.pieces["ab"] = None  # a spelling that is learnt already
    assert learner.step()
    assert list(learner.pieces) == ["ab", "cd"]
    assert learner.words == [["a", "b"], ["cd"]]


def test_settings_that_cannot_work():
    with pytest.raises(UsageError, match="too few for"):
        train_sentencepiece(["abcdefg"], SentencePieceSettings(4))
    with pytest.raises(UsageError, match="more than 257"):
        train_sentencepiece(["abc"], SentencePieceSettings(200, byte_fallback=True))
    with pytest.raises(UsageError, match="must be different"):
        SentencePieceSettings(100, special_tokens=("<s>",), symbols=("<s>",)).check()
    with pytest.raises(DataError, match="no text"):
        train_sentencepiece(["", " \n "], SentencePieceSettings(100))


@pytest.mark.row("TOK-15", reference="property")
@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_the_kind_of_the_registry(kind, tmp_path):
    from groundup.tokenizers.hub import load_tokenizer

    calls = []
    config = SentencePieceConfig(vocab_size=330, model=kind, byte_fallback=True, symbols=("<sep>",), coverage=1.0)
    text = "the cat and the hat sat on the mat\nand that is that <sep> <|endoftext|>\n"
    trained = config.train([text] * 3, progress=lambda done, total: calls.append((done, total)))
    trained.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint() == trained.fingerprint()
    assert (again.bos_id, again.eos_id, again.pad_id) == (0, 0, 0)
    assert again.chat_template == trained.chat_template
    ids = again.encode("the cat <|endoftext|> ж")
    assert 0 not in ids
    assert again.decode(ids) == "the cat <|endoftext|> ж"
    assert again.encode("<|endoftext|>", allowed_special=True) == [0]
    assert {"tokenizer.model", "tokenizer.json", "tokenizer_config.json"} <= {p.name for p in tmp_path.iterdir()}
    if kind == "bpe":
        assert calls[-1][0] <= calls[-1][1]


def with_turns(kind: int) -> ModelFile:
    """A turn sign that the model file holds as a symbol of the user, as Yi's does, and an ordinary piece."""
    made = model(kind, byte_fallback=True, rules={})
    made.pieces += [Piece("<|turn|>", 0.0, int(PieceType.USER_DEFINED)), Piece("▁a", -0.5), Piece("<x>", 0.0, 4)]
    return made


@pytest.mark.row("TOK-16", reference="property: text never becomes a control token")
@pytest.mark.parametrize("kind", [1, 2, 4])
def test_what_files_beside_the_model_say(tmp_path, kind):
    """Tokens behind its pieces, and pieces that are special; they stay so when saved, extended and read again."""
    file = with_turns(kind)
    size = len(file.pieces)
    turn, word = size - 3, size - 2
    (tmp_path / "tokenizer.model").write_bytes(file.to_bytes())
    assert turn in load_tokenizer(tmp_path).encode("aa<|turn|>b")  # nothing says that it is special
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[PAD]": size, "<plain>": size + 1}))
    entries = {
        str(turn): {"content": "<|turn|>", "special": True},
        str(word): {"content": "▁a", "special": True},
        "0": {"content": "<unk>", "special": True},
    }
    config = {"added_tokens_decoder": entries, "pad_token": "[PAD]"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    read = load_tokenizer(tmp_path)
    read.chat_templates["tool_use"] = "T"
    read.save_pretrained(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    extended = add_tokens(read, ["<new>"], special=True)
    text = "a <|turn|>[PAD]<plain><x>"
    for tokenizer in (read, again, extended):
        assert tokenizer.pad_id == size
        assert {"<|turn|>": turn, "▁a": word, "[PAD]": size}.items() <= tokenizer.special_tokens.items()
        assert tokenizer.chat_templates == {"tool_use": "T"}
        ids = tokenizer.encode(text)
        assert {turn, word, size}.isdisjoint(ids)
        assert {size + 1, size - 1} <= set(ids)
        assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")
        allowed = tokenizer.encode("<|turn|>[PAD]", allowed_special=True)
        assert allowed == [turn, size]
        assert tokenizer.decode(allowed, skip_special=True) == ""
        assert tokenizer.decode([0], skip_special=True) == file.trainer.unk_surface
    assert again.fingerprint() == read.fingerprint()
    assert extended.special_tokens["<new>"] == size + 2
    if kind < 3:
        listed = json.loads((tmp_path / "again" / "tokenizer.json").read_text())["added_tokens"]
        assert len({token["id"] for token in listed}) == len(listed)
        (tmp_path / "again" / "tokenizer.model").unlink()
        assert {turn, word, size}.isdisjoint(load_tokenizer(tmp_path / "again").encode(text))


def test_added_tokens_that_contradict_the_model(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(with_turns(1).to_bytes())
    for tokens, message in (({"a": 2}, "'a' has id 2"), ({"new": 4}, "id 4 belongs to both")):
        (tmp_path / "added_tokens.json").write_text(json.dumps(tokens))
        with pytest.raises(CheckpointError, match=message):
            load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", [1, 2, 4])
def test_a_symbol_that_the_template_writes_is_nobody_elses(kind):
    tokenizer = SentencePiece(with_turns(kind))
    turn = tokenizer.vocab["<|turn|>"]
    template = "{% for m in messages %}<|turn|>{{ m.content }}{% endfor %}"
    found = render_chat(tokenizer, [{"role": "user", "content": "a<|turn|>b <x>"}], template=template)
    assert found.ids.count(turn) == 1
    assert found.text == "<|turn|>a<|turn|>b <x>"
    assert tokenizer.vocab["<x>"] in found.ids  # what the template does not write is a word like any other
