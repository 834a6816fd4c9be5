"""`groundup tokenizer steps`, and the kind `bpe`, as typed."""

import json

import pytest

from groundup.cli import main


def answer(capsys, *words):
    code = main(["tokenizer", *map(str, words)])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


@pytest.mark.row("TOK-07", reference="hand calculation")
def test_the_car_the_cat_the_rat(tmp_path, capsys):
    path = tmp_path / "car.txt"
    path.write_text("the car\nthe cat\nthe rat\n")
    code, out, _ = answer(capsys, "steps", path, "--steps", 3)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    first = next(line for line in lines if line[:1] == ["1"])
    assert first == ["1", "t", "+", "h", "3", "th", "h", "6", "h+e"]
    assert "  ca r (1)" in out
    found = json.loads(answer(capsys, "steps", path, "--steps", 3, "--json")[1])
    assert [(step["step"], step["symbol"], step["count"]) for step in found["steps"]] == [
        (1, "th", 3), (2, "the", 3), (3, "ca", 2),
    ]  # fmt: skip
    assert found["steps"][0]["rivals"] == [["h", "e"]]
    assert found["vocabulary"] == {"the": 3, "ca": 2, "r": 2, "t": 2, "a": 1}


@pytest.mark.row("TOK-08", reference="hand calculation")
def test_hello_world_with_ends_of_words(tmp_path, capsys):
    path = tmp_path / "hello.txt"
    path.write_text("hello world")
    found = json.loads(answer(capsys, "steps", path, "--end-of-word", "own", "--steps", 100, "--json")[1])
    assert len(found["steps"]) == 10
    assert found["steps"][0] == {
        "step": 1, "pair": ["h", "e"], "count": 1, "symbol": "he", "removed": ["h", "e"], "symbols": 7,
        "rivals": found["steps"][0]["rivals"],
    }  # fmt: skip
    assert found["vocabulary"] == {"hello</w>": 1, "world</w>": 1}
    assert "no pair occurs 1 times any more" in answer(capsys, "steps", path, "--steps", 100)[1]
    joined = json.loads(answer(capsys, "steps", path, "--end-of-word", "joined", "--json")[1])
    assert {"symbols": ["h", "e", "l", "l", "o</w>"], "count": 1} in joined["start"]


@pytest.mark.row("TOK-08", reference="own: from the command line")
def test_the_kind_bpe(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text("the cat and the hat and the rat\n" * 20)
    train = ("train", path, "--tokenizer.kind", "bpe", "--tokenizer.vocab-size", "40", "--out-dir", tmp_path / "t")
    assert answer(capsys, *train)[0] == 0
    found = json.loads(answer(capsys, "encode", tmp_path / "t", "the cat", "--json")[1])
    assert found["tokens"] == ["the</w>", "cat</w>"]
    assert answer(capsys, "decode", tmp_path / "t", *found["ids"])[1] == "the cat\n"
    history = json.loads(answer(capsys, "inspect", tmp_path / "t", "--token", "the</w>", "--json")[1])["history"]
    assert history["start"] == ["t", "h", "e</w>"]


def test_what_steers_a_terminal_is_spelled(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("\x1b[2Jx \x1b[2Jx")
    assert main(["tokenizer", "steps", str(tmp_path / "a.txt"), "--steps", "1"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "   1  \\x1b + [      2  \\x1b[ " in out
    assert "  \\x1b[ 2 J x (2)\n" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("steps", "nowhere.txt"), 3, "no file at nowhere.txt"),
        (("steps", "EMPTY"), 3, "no text to learn from"),
        (("steps", "EMPTY", "--steps", "0"), 2, "steps"),
        (("steps", "EMPTY", "--end-of-word", "x"), 2, "none"),
        (("steps",), 2, "files"),
    ],
)
def test_wrong_input_is_explained(tmp_path, capsys, words, code, message):
    (tmp_path / "empty.txt").write_text(" \n")
    found, _, err = answer(capsys, *(tmp_path / "empty.txt" if word == "EMPTY" else word for word in words))
    assert found == code
    assert message in err.lower()
