"""The tokenizer verbs, as typed."""

import io
import json
import sys

import pytest

from groundup.cli import main


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
    ],
)
def test_wrong_input_is_explained(folder, capsys, words, message):
    code, _, err = answer(capsys, *(folder if word == "FOLDER" else word for word in words))
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
