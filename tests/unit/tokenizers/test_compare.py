"""Comparison, one token's history, conversion: the library and the commands."""

import json

import pytest

from groundup.base.errors import CheckpointError, DataError, UsageError
from groundup.cli import main
from groundup.commands.tokenizer_look import paint
from groundup.tokenizers.characters import train_characters
from groundup.tokenizers.comparison import compare, coverage, first_difference, pieces
from groundup.tokenizers.conversion import FORMS, convert
from groundup.tokenizers.history import find, history
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.training.byte_bpe import train_byte_bpe
from groundup.tokenizers.words import train_words

TEXT = "the cat and the hat and the rat\n" * 20


@pytest.fixture(scope="module")
def bpe():
    return train_byte_bpe([TEXT], 270, ["<|endoftext|>"])


@pytest.fixture(scope="module")
def words():
    return train_words([TEXT], ["<|endoftext|>"])


def answer(capsys, *words):
    code = main(["tokenizer", *map(str, words)])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


@pytest.mark.row("TOK-20", reference="hand calculation")
def test_figures(bpe, words):
    characters = train_characters([TEXT])
    measured = {row.name: row for row in compare({"b": bpe, "w": words, "c": characters}, "the cat, the dog")}
    w, c, b = measured["w"], measured["c"], measured["b"]
    assert (w.tokens, w.unknown, w.tokens_per_word, w.tokens_per_byte) == (5, 2, 5 / 4, 5 / 16)  # , and dog
    assert w.coverage == 0.5  # the, the; not `cat,` and `dog`
    assert not w.lossless
    assert (c.tokens, c.error is None, c.coverage) == (None, False, 0.5)
    assert "','" in c.error
    assert (b.unknown, b.coverage, b.lossless, b.tokens) == (0, 1.0, True, len(bpe.encode("the cat, the dog")))
    assert b.megabytes_per_second > 0
    assert coverage(words, "") == 1.0
    with pytest.raises(DataError, match="empty"):
        compare({"b": bpe}, "")


@pytest.mark.row("TOK-20", reference="hand calculation")
def test_where_ids_part(bpe):
    other = train_byte_bpe([TEXT], 258, ["<|endoftext|>"])
    assert first_difference(bpe, [1, 2], bpe, [1, 2]) is None
    text = "a the"
    found = first_difference(bpe, bpe.encode(text), other, other.encode(text))
    assert (found.token, found.cut, found.byte, found.before) == (1, 1, 1, "a")
    assert found.first.startswith(" t")
    shorter = first_difference(bpe, bpe.encode("a"), bpe, bpe.encode("a a"))
    assert (shorter.token, shorter.first, shorter.second) == (1, None, " ")
    renumbered = train_byte_bpe([TEXT], 270, ["<|other|>", "<|endoftext|>"])
    same = first_difference(bpe, bpe.encode("xyz"), renumbered, renumbered.encode("xyz"))
    assert (same.token, same.cut) == (0, None)


@pytest.mark.row("TOK-20", reference="property: pieces make the text")
def test_pieces_and_colours(bpe):
    text = "the cat 🙂\n"
    shown = list(pieces(bpe, bpe.encode(text)))
    assert "".join(shown).startswith("the cat \\xf0\\x9f")
    assert paint(["the", " cat", "\n", "\x1b[31m"], colour=False) == "the| cat|\\n|\\x1b[31m"
    painted = paint(["the", " cat", "\n"], colour=True)
    assert painted.count("\x1b[0m") == 3
    assert "\x1b[31m" not in paint(["\x1b[31m"], colour=True)


@pytest.mark.row("TOK-20", reference="hand calculation")
def test_compare_command(bpe, words, tmp_path, capsys):
    for name, tokenizer in {"b": bpe, "b2": bpe, "w": words}.items():
        tokenizer.save_pretrained(tmp_path / name)
    paths = [tmp_path / name for name in ("b", "b2", "w")]
    code, out, _ = answer(capsys, "compare", *paths, "--text", "the cat zoo")
    assert code == 0
    assert "the same ids as" in out
    assert "the| cat| |z|o|o" in out
    assert "\x1b[" not in out  # not a terminal
    found = json.loads(answer(capsys, "compare", *paths, "--text", "the cat zoo", "--json")[1])
    assert [row["tokens"] for row in found["results"]] == [6, 6, 3]
    assert [row["equal"] for row in found["agreement"]] == [True, False]
    assert answer(capsys, "compare", tmp_path / "b", "--text", "")[0] == 3
    assert answer(capsys, "compare", tmp_path / "none", "--text", "x")[0] == 1


@pytest.mark.row("TOK-20", reference="hand calculation")
def test_one_tokens_history(bpe):
    merges = {left + right: rank for rank, (left, right) in enumerate(bpe.merges)}
    found = history(bpe, find(bpe, " the"))
    assert (found.token, found.data, found.sort, found.start) == ("Ġthe", b" the", "vocabulary", ("Ġ", "t", "h", "e"))
    assert found.whole
    assert found.merges[-1].state == ("Ġthe",)
    for step in found.merges:
        assert step.rank == merges[step.left + step.right]
        assert bpe.merges[step.rank] == (step.left, step.right)
    assert history(bpe, 0).sort == "special"
    assert history(bpe, 0).notes == ("it is the EOS token",) or history(bpe, 0).notes == ()
    assert find(bpe, "261") == 261
    with pytest.raises(UsageError, match="is no token"):
        find(bpe, "hatter")


def test_inspect_command(bpe, tmp_path, capsys):
    bpe.save_pretrained(tmp_path)
    code, out, _ = answer(capsys, "inspect", tmp_path, "--token", " the")
    assert code == 0
    assert "Ġthe" in out
    found = json.loads(answer(capsys, "inspect", tmp_path, "--token", " the", "--json")[1])
    assert found["history"]["bytes"] == "20 74 68 65"
    assert found["merges"] == len(bpe.merges)
    assert answer(capsys, "inspect", tmp_path, "--token", "zzz")[0] == 2


def test_conversion_keeps_all_or_says_what_is_lost(bpe, tmp_path):
    with pytest.raises(UsageError, match=r"no place for: .*the special tokens <\|endoftext\|>"):
        convert(bpe, "tiktoken", tmp_path / "t")
    assert not (tmp_path / "t").exists()
    lost = convert(bpe, "tiktoken", tmp_path / "t", lossy=True)
    assert len(lost) >= 2
    back = load_tokenizer(tmp_path / "t", pattern="gpt2")
    assert back.encode(TEXT) == bpe.encode(TEXT)
    assert convert(bpe, "openai", tmp_path / "o", lossy=True) is not None
    assert load_tokenizer(tmp_path / "o").encode(TEXT) == bpe.encode(TEXT)
    assert convert(bpe, "json", tmp_path / "j") == []
    with pytest.raises(UsageError, match=r"cannot be written as `rwkv`.*json, tiktoken, openai, vocab"):
        convert(bpe, "rwkv", tmp_path / "r")
    with pytest.raises(UsageError, match="Did you mean `tiktoken`"):
        convert(bpe, "tictoken", tmp_path / "r")
    normal = train_byte_bpe([TEXT], 270, normal_form="NFC")
    with pytest.raises(CheckpointError, match="NFC"):
        convert(normal, "tiktoken", tmp_path / "n", lossy=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j", "o", "t"]


@pytest.mark.parametrize(
    ("file", "form"),
    [("gpt2.tiktoken", "openai"), ("gpt2-encoder.json", "tiktoken"), ("rwkv_vocab_v20230424.txt", "json")],
)
def test_real_vocabularies_convert_without_loss(shared, tmp_path, capsys, file, form):
    source = shared / "tokenizers" / file
    code, _, err = answer(capsys, "convert", source, "--to", form, "--out-dir", tmp_path / "c")
    assert code == 0, err
    back = load_tokenizer(tmp_path / "c" / FORMS[form].file)
    assert back.encode(TEXT + "中文 🙂") == load_tokenizer(source).encode(TEXT + "中文 🙂")


def test_wrong_words(tmp_path, capsys):
    assert answer(capsys, "convert", tmp_path, "--to", "tictoken")[0] == 2
    assert answer(capsys, "convret", "x")[0] == 2
    assert answer(capsys, "extend", tmp_path)[0] == 2
