import io
import json

import pytest

from groundup.base.errors import GroundupError, UsageError
from groundup.commands.chat import Session, entries
from groundup.generation.config import SamplingConfig
from groundup.generation.dialogue import Dialogue
from groundup.generation.generate import generate
from standin import Bytes, Decay


def dialogue(limit=None, **options):
    overflow, system = options.pop("overflow", "refuse"), options.pop("system", "")
    return Dialogue(Decay(limit=limit), Bytes(), SamplingConfig(**{"max_new_tokens": 8, **options}), system, overflow)


def talk(chat, *texts):
    session = Session(chat)
    return [session.handle(text) for text in texts]


@pytest.mark.row("INF-14", reference="property")
def test_history_is_the_prompt(capsys):
    chat = dialogue(system="Be brief.")
    talk(chat, "Hello", "And you?")
    roles = [message["role"] for message in chat.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    first, second = chat.turns[1]["content"], chat.turns[3]["content"]
    prompt = f"Be brief.\nHello{first}\nAnd you?"
    assert second == generate(chat.model, Bytes(), prompt, max_new_tokens=8)[0].text
    assert capsys.readouterr().out == f"{first}\n{second}\n"


@pytest.mark.row("INF-14", reference="property")
def test_commands(tmp_path, capsys):
    chat, path = dialogue(), tmp_path / "talk.json"
    assert talk(chat, "one", "two", f"/save {path}", "/undo") == [True] * 4
    assert [turn["content"] for turn in chat.turns if turn["role"] == "user"] == ["one"]
    saved = json.loads(path.read_text())["messages"]
    assert [message["content"] for message in saved if message["role"] == "user"] == ["one", "two"]
    talk(chat, "/reset")
    assert chat.turns == []
    talk(chat, f"/load {path}")
    assert chat.messages == saved
    talk(chat, "/system Be kind.", f"/save {path}", "/system", "/reset")
    assert chat.messages == []
    talk(chat, f"/load {path}")
    assert chat.system == "Be kind."
    capsys.readouterr()
    assert talk(chat, "/help") == [True]
    assert "/retry" in capsys.readouterr().out
    assert talk(chat, "/quit") == [False]


@pytest.mark.row("INF-14", reference="property")
def test_retry_gives_another_answer_each_time():
    chat = dialogue()
    talk(chat, "Hi")
    answers = {chat.turns[-1]["content"]}
    for _ in range(3):
        talk(chat, "/retry")
        assert [turn["role"] for turn in chat.turns] == ["user", "assistant"]
        answers.add(chat.turns[-1]["content"])
    assert len(answers) == 4


def test_mistakes_are_said_and_the_talk_goes_on(tmp_path, capsys):
    chat = dialogue()
    bad = tmp_path / "bad.json"
    bad.write_text('{"messages": [{"role": "robot", "content": "x"}]}')
    talk(chat, "Hi")
    before = chat.messages
    kept = talk(chat, "/rset", "/save", f"/load {bad}", "/load nowhere.json", f"/save {tmp_path}/a.json/b.json/")
    assert kept == [True] * 5
    errors = capsys.readouterr().err
    assert "Did you mean `/reset`?" in errors
    assert "message 1 must have" in errors
    assert chat.messages == before
    talk(dialogue(), "/undo", "/retry")
    assert "nothing has been said yet" in capsys.readouterr().err


@pytest.mark.row("INF-14", reference="property")
def test_overflow_is_refused_with_both_numbers(capsys):
    chat = dialogue(limit=40)
    talk(chat, "a" * 20, "b" * 20)
    assert [turn["role"] for turn in chat.turns] == ["user", "assistant"]  # the refused question is not kept
    assert "the model's context holds 40" in capsys.readouterr().err
    with pytest.raises(UsageError):
        chat.say("c" * 33)


@pytest.mark.row("INF-14", reference="property")
def test_overflow_drops_the_oldest_turns_when_asked(capsys):
    chat = dialogue(limit=60, overflow="drop", system="S")
    talk(chat, "a" * 20, "b" * 20, "c" * 20)
    assert len(chat.turns) == 6  # the saved history is whole
    assert chat.dropped == 4 or chat.dropped == 2
    assert "left out" in capsys.readouterr().err
    kept = chat.prompt(chat.turns[chat.dropped : -1])
    assert chr(kept[0]) == "S"
    assert len(kept) + 8 <= 60
    with pytest.raises(UsageError, match="context holds 60"):
        chat.say("d" * 80)


def test_an_interrupted_answer_is_kept():
    chat = dialogue()
    pieces = chat.say("Hi")
    first = next(pieces)
    pieces.close()
    assert chat.turns[-1] == {"role": "assistant", "content": first}


def test_load_leaves_the_dialogue_when_the_file_is_wrong(tmp_path):
    chat = dialogue()
    talk(chat, "Hi")
    before = chat.messages
    for text in ("{", "[]", '{"messages": 1}', '{"messages": [{"role": "user"}]}',
                 '{"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}'):  # fmt: skip
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(GroundupError):
            chat.load(tmp_path / "x.json")
    assert chat.messages == before


@pytest.mark.row("INF-14", reference="hand calculation")
def test_entries_from_a_pipe():
    lines = 'one\ntwo \\\nthree\n"""\nfour\n\nfive\n"""\n/help\r\n\nsix\\'
    assert list(entries(io.StringIO(lines))) == ["one", "two \nthree", "four\n\nfive", "/help", "", "six\n"]
