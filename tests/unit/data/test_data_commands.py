"""`groundup data ...` as a user types it."""

import json

import pytest

from groundup.cli import main


@pytest.fixture
def good(tmp_path):
    (tmp_path / "good.jsonl").write_text('{"text": "one"}\n{"text": "three"}\n')
    return str(tmp_path / "good.jsonl")


def test_inspect(good, capsys):
    assert main(["data", "inspect", good, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["documents"], report["characters"]) == ("text", 2, 8)
    assert "columns text" in report["why"]
    assert report["first"] == {"id": "good.jsonl:1", "text": "one"}
    assert report["lengths"]["characters"]["longest"] == 5


def test_inspect_says_why_not(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"body": "x"}\n')
    assert main(["data", "inspect", str(tmp_path / "a.jsonl")]) == 3
    assert "a.jsonl:1: no column `text`; found: body" in capsys.readouterr().err


def test_validate(good, tmp_path, capsys):
    assert main(["data", "validate", good]) == 0
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "one"}\noops\n{"text": 3}\n')
    assert main(["data", "validate", str(bad), "--json"]) == 3
    out = capsys.readouterr().out
    report = json.loads(out[out.index("{") :])
    assert [message.split(": ")[0] for message in report["messages"]] == [f"{bad}:2", f"{bad}:3"]
    assert report["documents"] == 1
