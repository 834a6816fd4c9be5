"""The tokenizer verbs, as typed."""

import io
import json
import sys

import pytest

from groundup.cli import main
from groundup.commands.tokenizer import TokenizerTrain


@pytest.fixture
def folder(tmp_path, capsys):
    text = tmp_path / "texts"
    text.mkdir()
    (text / "a.txt").write_text("the cat and the hat and the rat\n" * 20, encoding="utf-8")
    (text / "b.md").write_text("déjà vu\n" * 20, encoding="utf-8")
    assert (
        main(["tokenizer", "train", str(text), "--out-dir", str(tmp_path / "t"), "--tokenizer.vocab-size", "280"]) == 0
    )
    capsys.readouterr()
    return tmp_path / "t"


def answer(capsys, *words):
    code = main(["tokenizer", *map(str, words)])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def test_encode_then_decode(folder, capsys, tmp_path):
    code, out, _ = answer(capsys, "encode", folder, "the cat", "déjà")
    assert code == 0
    assert answer(capsys, "decode", folder, *out.split())[1] == "the cat déjà\n"
    path = tmp_path / "ids"
    path.write_text(str([int(word) for word in out.split()]))
    assert answer(capsys, "decode", folder, "--file", path)[1] == "the cat déjà\n"


def test_text_through_a_pipe(folder, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the hat")))
    found = json.loads(answer(capsys, "encode", folder, "--json", "--bos")[1])
    assert found["tokens"][0] == "<|endoftext|>"
    assert "".join(found["tokens"][1:]) == "theĠhat"


def test_inspect_and_compare(folder, capsys, tmp_path):
    code, out, _ = answer(capsys, "inspect", folder, "the cat")
    assert code == 0
    assert "Ġcat" in out
    text = str(tmp_path / "texts" / "a.txt")
    train = ("train", text, "--tokenizer.kind", "characters", "--out-dir", tmp_path / "c")
    assert answer(capsys, *train)[0] == 0
    found = json.loads(answer(capsys, "compare", folder, tmp_path / "c", "--file", text, "--json")[1])
    ours, characters = found["results"]
    assert ours["lossless"]
    assert characters["tokens"] == found["bytes"] > ours["tokens"]
    partly = json.loads(answer(capsys, "compare", folder, tmp_path / "c", "--text", "Ω", "--json")[1])
    assert [row["lossless"] for row in partly["results"]] == [True, False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "nowhere.txt"), "no file or folder"),
        (("encode", "nowhere", "x"), "no tokenizer at nowhere"),
        (("decode", "FOLDER", "1", "two"), "'two' is not a token id"),
        (("decode", "FOLDER", "999999"), "not in the vocabulary"),
        (("encode", "FOLDER", "x", "--file", "y"), "not both"),
        (("encode", "FOLDER", "--file", "nowhere.txt"), "no file at nowhere.txt"),
        (("encode", "FOLDER", "--file", "."), ". is a folder: name a file"),
        (("encode", "FOLDER/tokenizer_config.json", "x"), "has no `model`: it is not a tokenizer.json"),
        (("compare", "FOLDER", "--text", "x", "--pieces", "-5"), "greater than or equal to 0"),
        (("chat", "FOLDER", "FOLDER"), "is a folder: name a file"),
    ],
)
def test_wrong_input_is_explained(folder, capsys, words, message):
    code, _, err = answer(capsys, *(word.replace("FOLDER", str(folder)) for word in words))
    assert code != 0
    assert message in err


def test_bytes_that_are_not_text(tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"fine\nb\xffd")
    code, _, err = answer(capsys, "train", path, "--out-dir", tmp_path / "t")
    assert code == 3
    assert "bad.txt:2: not valid UTF-8 (byte 2 of the line" in err
    assert not (tmp_path / "t").exists()


def test_training_reads_what_training_a_model_reads(tmp_path, capsys):
    """JSON Lines by their column, compressed files and built-in corpora; nothing to learn from is an error."""
    import gzip

    lines = "".join(json.dumps({"body": f"the cat {n}"}) + "\n" for n in range(50))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    words = ("train", tmp_path / "a.jsonl.gz", "--tokenizer.vocab-size", "270", "--out-dir", tmp_path / "t", "--json")
    found = json.loads(answer(capsys, *words, "--column", "body")[1])
    assert (found["documents"], found["bytes"]) == (50, 50 * 8 + 10 + 2 * 40)
    assert answer(capsys, *words, "--out-dir", tmp_path / "none")[0] == 3
    small = ("--limit", "20", "--tokenizer.vocab-size", "300")
    corpus = ("train", "stories", *small, "--out-dir", tmp_path / "s", "--json")
    assert json.loads(answer(capsys, *corpus)[1])["documents"] == 20
    (tmp_path / "empty.txt").write_text("")
    code, _, err = answer(capsys, "train", tmp_path / "empty.txt", "--out-dir", tmp_path / "e")
    assert code == 3
    assert "no text to learn from" in err
    assert not (tmp_path / "e").exists()


def test_a_folder_that_holds_something_is_not_written_to(folder, capsys, tmp_path):
    """Another tokenizer, or a file: nothing is read or learnt, and what is there stays."""
    text, before = tmp_path / "texts" / "a.txt", {path: path.read_bytes() for path in folder.iterdir()}
    for place in (folder, text):
        code, _, err = answer(capsys, "train", text, "--out-dir", place)
        assert code == 1
        assert f"{place} exists already: choose another folder" in err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "new").mkdir()
    words = ("train", text, "--out-dir", tmp_path / "new", "--tokenizer.kind", "words")
    assert answer(capsys, *words)[0] == 0


@pytest.mark.parametrize("place", ["/proc/groundup", "texts/a.txt/below", "a" * 300])
@pytest.mark.parametrize("verb", ["train", "convert", "extend"])
def test_a_folder_that_cannot_be_written_is_one_clear_error(folder, capsys, tmp_path, monkeypatch, verb, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TokenizerTrain, "_train", lambda self: pytest.fail("work before the check"))
    words = {"train": ["texts"], "convert": [folder], "extend": [folder, "--special", "<|x|>"]}[verb]
    code, out, err = answer(capsys, verb, *words, "--out-dir", place)
    assert (code, out) == (1, "")
    assert err.startswith(f"groundup: cannot write {place}: ")
    assert err.count("\n") == 1


def test_a_name_that_is_no_file_name(folder, capsys):
    """A text where the tokenizer should stand, for example."""
    code, out, err = answer(capsys, "encode", "word " * 100, folder)
    assert (code, out) == (1, "")
    assert err.startswith("groundup: word word ")
    assert err.endswith(": file name too long\n")


def test_records_without_the_column_show_a_command_that_works(capsys, tmp_path):
    import shlex

    file = tmp_path / "my talks.jsonl"
    file.write_text('{"id": 1, "question": "the cat the cat", "answer": "the hat"}\n' * 9)
    words = (
        "train",
        file,
        "--out-dir",
        tmp_path / "t",
        "--tokenizer.kind",
        "wordpiece",
        "--tokenizer.vocab-size",
        "30",
    )
    code, _, err = answer(capsys, *words, "--no-tokenizer.lowercase")
    assert code == 3
    assert f"{file}:1: no column `text`; found: id, question, answer, the question-answer format. " in err
    assert "`--render`" in err
    command = shlex.split(err.partition("For example: ")[2])
    assert command[:3] == ["groundup", "tokenizer", "train"]
    assert main([*command[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kind"] == "wordpiece"
    assert found["vocab_size"] <= 30
    settings = json.loads((tmp_path / "t" / "tokenizer.json").read_text())["normalizer"]
    assert settings["lowercase"] is False
    file.write_text('{"id": 1}\n')
    err = answer(capsys, *words, "--out-dir", tmp_path / "u")[2]
    assert "found: id. The nearest known format is text (text). None of them holds text\n" in err


@pytest.mark.parametrize(
    ("kind", "shown", "size"), [("wordpiece", "wordpiece", "40"), ("bpe", "bpe", "40"), ("words", "words", None)]
)
def test_the_kind_that_is_shown_is_the_one_trained(capsys, tmp_path, kind, shown, size):
    (tmp_path / "a.txt").write_text("the cat and the hat and the rat\n" * 20)
    sized = ("--tokenizer.vocab-size", size) if size else ()
    words = ("train", tmp_path / "a.txt", "--out-dir", tmp_path / "t", "--tokenizer.kind", kind, *sized)
    assert json.loads(answer(capsys, *words, "--json")[1])["kind"] == shown
    assert json.loads(answer(capsys, "inspect", tmp_path / "t", "--json")[1])["kind"] == shown
    compared = json.loads(answer(capsys, "compare", tmp_path / "t", "--text", "the", "--json")[1])
    assert compared["results"][0]["kind"] == shown
    assert f"{shown}, " in answer(capsys, "inspect", tmp_path / "t", "--token", "5")[1]
    err = answer(capsys, "convert", tmp_path / "t", "--to", "rwkv", "--out-dir", tmp_path / "r")[2]
    assert f"a {shown} tokenizer cannot be written as `rwkv`" in err


def test_nothing_to_learn_from_names_the_sources(capsys, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(" \n")
    code, _, err = answer(capsys, "train", tmp_path / "a.txt", tmp_path / "b.txt", "--out-dir", tmp_path / "t")
    assert code == 3
    assert f"{tmp_path / 'a.txt'}, {tmp_path / 'b.txt'}: no text to learn from" in err


def test_words_may_stand_behind_options(folder, capsys):
    bare = answer(capsys, "encode", folder, "the", "cat")[1]
    with_bos = answer(capsys, "encode", folder, "--bos", "the", "cat")[1]
    assert with_bos == f"0 {bare}"
    assert answer(capsys, "encode", folder, "the", "--bos", "cat")[1] == with_bos
    dashes = answer(capsys, "encode", folder, "--bos", "--", "--eos", "-x")[1]
    assert answer(capsys, "decode", folder, "--skip-special", *dashes.split())[1] == "--eos -x\n"
    compared = json.loads(answer(capsys, "compare", folder, "--text", "the", "tiny", "--json")[1])
    assert [row["tokenizer"] for row in compared["results"]] == [str(folder), "tiny"]


def test_words_too_many_and_wrong_options_behind_options(folder, capsys):
    assert (
        "`--boss` is not an option. Did you mean `--bos`?"
        in answer(capsys, "encode", folder, "--bos", "x", "--boss")[2]
    )
    assert "`b` is not expected here" in answer(capsys, "chat", folder, "--tokens", "a", "b")[2]


def test_the_help_tells_defaults_and_kinds(capsys):
    """pydantic-settings says of an option that several kinds have what the last of them says."""
    with pytest.raises(SystemExit):
        main(["tokenizer", "train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "Which one. (default: byte_bpe)" in out
    assert "[wordpiece, bpe, byte_bpe, sentencepiece] (default: 4096)" in out
    assert "uncased BERT does. [wordpiece] (default: True)" in out


def test_a_setting_of_another_kind_is_said_to_be_that(capsys, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    words = ("train", tmp_path / "a.txt", "--tokenizer.kind", "words", "--tokenizer.pattern", "gpt4")
    err = answer(capsys, *words)[2]
    assert "`tokenizer.words.pattern` is not a setting. Another kind or section has it." in err
