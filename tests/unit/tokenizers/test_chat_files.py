"""Where chat templates lie in a folder, and the command that shows a conversation."""

import io
import json
import sys

import pytest

from chat_families import CALL, TALK, TOOL_TALK, WEATHER, tokenizer_of
from groundup.base import console
from groundup.base.errors import CheckpointError, UsageError
from groundup.cli import main
from groundup.commands import tokenizer_chat
from groundup.tokenizers.chat.files import read_templates, write_templates
from groundup.tokenizers.chat.render import choose_template, render_chat
from groundup.tokenizers.hub import load_tokenizer


@pytest.fixture
def folder(tmp_path):
    tokenizer_of("chatml").save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    return tmp_path


def write(folder, name, value):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def in_config(folder, value):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder, "tokenizer_config.json", config | {"chat_template": value})


def test_newer_places_win_name_by_name(folder):
    assert read_templates(folder) == {}
    write(folder, "chat_template.json", {"chat_template": "processor"})
    assert load_tokenizer(folder).chat_template == "processor"
    in_config(folder, "config")
    assert load_tokenizer(folder).chat_template == "config"
    in_config(folder, [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}])
    found = load_tokenizer(folder)
    assert (found.chat_template, found.chat_templates) == ("D", {"tool_use": "T"})
    write(folder, "additional_chat_templates/tool_use.jinja", "T2\r\n.")
    write(folder, "additional_chat_templates/rag.jinja", "R")
    write(folder, "chat_template.jinja", "J")
    found = load_tokenizer(folder / "tokenizer.json")
    assert (found.chat_template, found.chat_templates) == ("J", {"tool_use": "T2\n.", "rag": "R"})


def test_a_folder_written_over_keeps_no_old_templates(folder):
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template, tokenizer.chat_templates = "A", {"x": "X", "y": "Y"}
    tokenizer.save_pretrained(folder)
    tokenizer.chat_template, tokenizer.chat_templates = None, {"y": "Z"}
    tokenizer.save_pretrained(folder)
    assert read_templates(folder) == {"y": "Z"}
    tokenizer.chat_templates = {"../y": "Z"}
    with pytest.raises(CheckpointError, match="cannot be called"):
        write_templates(tokenizer, folder)


@pytest.mark.parametrize(
    "value",
    [3, ["a"], [{"name": "a"}], [{"template": "a"}], [{"name": 3, "template": "a"}], {"a": 3}, "a" * (2**20 + 1),
     [{"name": str(i), "template": ""} for i in range(65)]],
    ids=lambda value: str(value)[:20],
)  # fmt: skip
def test_damaged_keys_are_named(folder, value):
    in_config(folder, value)
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json"):
        load_tokenizer(folder)


def test_damaged_folders(folder):
    for i in range(65):
        write(folder, f"additional_chat_templates/{i}.jinja", "")
    with pytest.raises(CheckpointError, match="more than 64"):
        load_tokenizer(folder)


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.jinja"
    outside.write_text("secret")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "a.jinja").symlink_to(outside)
    with pytest.raises(CheckpointError):
        load_tokenizer(folder)


def test_which_template_is_chosen(folder):
    tokenizer = load_tokenizer(folder)
    with pytest.raises(UsageError, match="no chat template"):
        choose_template(tokenizer)
    tokenizer.chat_template, tokenizer.chat_templates = "D", {"tool_use": "T", "chatml": "mine"}
    assert choose_template(tokenizer) == "D"
    assert choose_template(tokenizer, tools=[WEATHER]) == "T"
    assert choose_template(tokenizer, "tool_use") == "T"
    assert choose_template(tokenizer, "chatml") == "mine"
    assert choose_template(tokenizer, "{{ x }}") == "{{ x }}"


def test_tools_as_json_text():
    tokenizer = tokenizer_of("qwen")
    expected = render_chat(tokenizer, TOOL_TALK, tools=[WEATHER])
    assert render_chat(tokenizer, TOOL_TALK, tools=json.dumps([WEATHER])) == expected
    for wrong in ("{", "3", [3], 3, "[3]"):
        with pytest.raises(UsageError, match="tools"):
            render_chat(tokenizer, TOOL_TALK, tools=wrong)
    with pytest.raises(UsageError, match="documents"):
        render_chat(tokenizer, TALK, documents=[3])


def test_what_counts_must_be_clear():
    tokenizer = tokenizer_of("chatml")
    for key, value in (("train", "no"), ("weight", 0.5), ("weight", 2)):
        with pytest.raises(UsageError, match=f"message 2: `{key}`"):
            render_chat(tokenizer, [*TALK[:2], TALK[2] | {key: value}])
    with pytest.raises(UsageError, match="`turns`"):
        render_chat(tokenizer, TALK, turns="first")
    # Two blocks a message: told apart by the message that each reads.
    twice = (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}-"
        "{% generation %}{{ m.content }}!{% endgeneration %}{% endif %}{% endfor %}"
    )
    found = render_chat(tokenizer, TALK, template=twice, turns="last")
    said = [number for number, counts in zip(found.ids, found.mask, strict=True) if counts]
    assert tokenizer.decode(said) == "I am an assistantI am an assistant!"
    blind = "{% generation %}a{% endgeneration %}{{ messages | length }}"
    assert sum(render_chat(tokenizer, TALK, template=blind).mask) == 1
    with pytest.raises(UsageError, match='turns="all"'):
        render_chat(tokenizer, TALK, template=blind, turns="last")


def run(capsys, *words):
    code = main(["tokenizer", "chat", *map(str, words)])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def test_the_command_shows_text_ids_and_mask(folder, capsys, monkeypatch):
    file, tools = folder / "talk.json", folder / "tools.json"
    write(folder, "talk.json", TALK[1:3])
    code, out, _ = run(capsys, folder, file, "--template", "chatml", "--tokens")
    assert code == 0
    assert out.startswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi there<|im_end|>\n")
    assert any(line.split()[1:] == ["'<|im_end|>'", "yes", "1"] for line in out.splitlines())
    write(folder, "talk.json", {"messages": TOOL_TALK})
    write(folder, "tools.json", [WEATHER])
    code, out, _ = run(capsys, folder, file, "--template", "chatml", "--tools", tools, "--turns", "last", "--json")
    found = render_chat(load_tokenizer(folder), TOOL_TALK, template="chatml", tools=[WEATHER], turns="last")
    assert json.loads(out) == {
        "text": found.text, "ids": found.ids, "mask": found.mask, "speakers": found.speakers
    }  # fmt: skip
    assert CALL["function"]["name"] in found.text
    write(folder, "own.jinja", "own {{ messages | length }}")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(TALK).encode())))
    code, out, _ = run(capsys, folder, "--template", folder / "own.jinja", "--generation-prompt")
    assert out.startswith("own 6\n")
    assert "no mask" in out


def test_the_command_colours_what_counts(monkeypatch):
    tokenizer = tokenizer_of("chatml")
    shown = tokenizer_chat.coloured(tokenizer, render_chat(tokenizer, TALK[1:3]))
    assert "\033[32mHi there\033[0m\033[32m\033[1m<|im_end|>\033[0m" in shown
    assert "\033[2muser\nHello\033[0m" in shown
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not console.in_colour()
    monkeypatch.setenv("NO_COLOR", "")
    assert console.in_colour()


STEERING = "\x1b[31mred\x07\x9b2J\u202e\r\x7f"
SPELLED = r"\x1b[31mred\x07\x9b2J\u202e\r\x7f"


def shown_safely(text):
    assert SPELLED in text
    assert not set(STEERING.replace("[31mred", "").replace("2J", "")) & set(text.replace("\x1b[", ""))


def test_what_steers_a_terminal_is_spelled(folder, capsys, monkeypatch):
    write(folder, "talk.json", [{"role": "user", "content": STEERING}])
    words = (folder, folder / "talk.json", "--template", "chatml")
    code, out, _ = run(capsys, *words)
    assert code == 0
    shown_safely(out)
    assert "\x1b" not in out
    monkeypatch.setattr(console.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown_safely(run(capsys, *words)[1])
    found = json.loads(run(capsys, *words, "--json")[1])
    assert STEERING in found["text"]
    assert load_tokenizer(folder).decode(found["ids"]) == found["text"]


def test_decode_is_exact_but_on_a_terminal(folder, capsys, monkeypatch):
    ids = load_tokenizer(folder).encode(STEERING + "\t\na")
    words = ["tokenizer", "decode", str(folder), *map(str, ids)]
    assert main(words) == 0
    assert capsys.readouterr().out == STEERING + "\t\na\n"
    monkeypatch.setattr(console.sys.stdout, "isatty", lambda: True, raising=False)
    assert main(words) == 0
    assert capsys.readouterr().out == SPELLED + "\t\na\n"


def test_a_template_that_is_no_file(folder, capsys):
    write(folder, "talk.json", TALK)
    file = folder / "talk.json"
    for name, what in (
        (folder / "none.jinja", "no file at"),
        (folder, "is a folder"),
        ("qwne", "Did you mean `qwen`?"),
        ("llama-3.2", "Did you mean `llama-3.1`?"),
    ):
        code, _, error = run(capsys, folder, file, "--template", name)
        assert code == 2
        assert what in error


@pytest.mark.parametrize(
    "content", ["{", "3", '{"a": []}', '[{"role": 3}]', "[]", '{"messages": []}', '[{"role": "user"}]']
)
def test_the_command_says_what_is_wrong(folder, capsys, content):
    write(folder, "talk.json", content)
    code, _, error = run(capsys, folder, folder / "talk.json", "--template", "chatml")
    assert code != 0
    assert error.startswith("groundup: ")
