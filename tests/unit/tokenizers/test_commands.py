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
        (("encode", "nowhere", "x"), "no model folder"),
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
    assert answer(capsys, *words)[0] == 3
    small = ("--limit", "20", "--tokenizer.vocab-size", "300")
    corpus = ("train", "stories", *small, "--out-dir", tmp_path / "s", "--json")
    assert json.loads(answer(capsys, *corpus)[1])["documents"] == 20
    (tmp_path / "empty.txt").write_text("")
    code, _, err = answer(capsys, "train", tmp_path / "empty.txt", "--out-dir", tmp_path / "e")
    assert code == 3
    assert "no text to learn from" in err
    assert not (tmp_path / "e").exists()
