"""The commands of the tokenizers' page print what the page shows."""

import io
import re
import shlex
import sys
from pathlib import Path

import pytest

from groundup.cli import find_verb, load_command, main
from groundup.commands.parse import parse

PAGE = (Path(__file__).resolve().parents[3] / "docs/tokenizers.md").read_text(encoding="utf-8")


def blocks(language):
    """The page's blocks of code in a language; "" for those that name none."""
    return [text for name, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S) if name == language]


def shown():
    """(command line, what the page shows of its output) of every `console` block, in order."""
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def typed():
    """The other commands of the page, which name files of the reader's."""
    for block in blocks(""):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("groundup "):
                yield line


def fits(output, expected):
    """Whether the output is as expected, where `...` stands for anything."""
    pattern = ".*?".join(map(re.escape, expected.split("...")))
    return re.fullmatch(pattern, output, re.S) is not None


def run(command, capsys, monkeypatch):
    """What a line prints, errors first as they come; `|` and `>` as in a shell."""
    line, _, target = command.partition(" > ")
    data = out = ""
    for words in map(shlex.split, line.split(" | ")):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data.encode())))
        if words[0] in ("echo", "printf"):
            out = words[1].replace("\\n", "\n") + "\n" * (words[0] == "echo")
        else:
            assert words[0] == "groundup"
            main(words[1:])
            caught = capsys.readouterr()
            out = caught.err + caught.out
        data = out
    if target:
        Path(target).write_text(out, encoding="utf-8")
    return "" if target else out


def test_the_commands_print_what_the_page_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command, expected in shown():
        output = run(command, capsys, monkeypatch)
        assert fits(output, expected), f"$ {command}\n{output}"


def test_the_page_shows_every_kind_of_command():
    assert len(list(typed())) >= 8
    verbs = {words[2] for words in (shlex.split(command.partition(" | ")[0]) for command, _ in shown()) if words[2:]}
    assert {"train", "encode", "inspect", "compare", "steps", "extend", "convert", "chat"} <= verbs


@pytest.mark.parametrize("line", list(typed()))
def test_commands_with_files_of_the_reader_are_understood(line):
    verb, rest = find_verb(shlex.split(line, comments=True)[1:])
    assert rest is not None
    parse(load_command(verb), verb, rest)


def test_a_wrong_output_is_seen():
    assert fits("1 token in 0.3 s\n", "1 token in ... s\n")
    assert not fits("2 tokens in 0.3 s\n", "1 token in ... s\n")
    assert not fits("1 token\nmore\n", "1 token\n")
