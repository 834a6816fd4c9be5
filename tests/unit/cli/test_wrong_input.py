"""What a new user types wrong: every message says what is wrong, where, and what to do next; never a traceback."""

import pytest

from groundup.cli import VERBS, load_command, main
from groundup.commands.parse import parse

FILES = {
    "empty.txt": b"",
    "binary.txt": b"\x00\x01\x02",
    "bad.jsonl": b'{"text": "a"\n',
    "empty.yaml": b"",
    "typo.yaml": b"training: {stepz: 3}\n",
    "tab.yaml": b"training:\n\tsteps: 3\n",
    "type.yaml": b"training: {steps: many}\n",
    "twice.yaml": b"training: {steps: 1}\ntraining: {steps: 2}\n",
    "source.yaml": b"data: {source: nowhere.txt}\n",
    "list.yaml": b"- a\n",
    "kind.yaml": b"training: {optimizer: {kind: adamww}}\n",
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("words", "parts"), [
    ("trian", ["`trian` is not a command", "Did you mean `train`"]),
    ("tokenizer trian x", ["`tokenizer trian` is not a command", "Did you mean `train`"]),
    ("generate", ["`model` is required", "groundup generate --help"]),
    ("generate --model tiny", ["`--model` is not an option", "groundup generate MODEL"]),
    ("generate tiny --temprature 1", ["`--temprature` is not an option", "Did you mean `--temperature`"]),
    ("generate nowhere hi", ["no model folder at nowhere", "config.json and model.safetensors"]),
    ("chat nowhere", ["no model folder at nowhere"]),
    ("evaluate nowhere", ["no model folder at nowhere"]),
    ("train --config", ["`--config` needs a YAML file"]),
    ("train nowhere.yaml", ["no settings file at nowhere.yaml"]),
    ("train empty.yaml", ["empty.yaml is empty"]),
    ("train list.yaml", ["list.yaml must hold a mapping of settings, found list"]),
    ("train typo.yaml", ["typo.yaml", "`training.stepz` is not a setting", "Did you mean `steps`"]),
    ("train tab.yaml", ["tab.yaml is not valid YAML", "line 2, column 1"]),
    ("train type.yaml", ["type.yaml", "`training.steps`", "got 'many'"]),
    ("train twice.yaml", ["twice.yaml", "`training` stands twice", "line 2"]),
    ("train kind.yaml", ["kind.yaml", "has no kind `adamww`", "Did you mean `adamw`"]),
    ("train source.yaml", ["no data at nowhere.txt", "--data.source PATH"]),
    ("train --training.steps -3", ["`training.steps`", "greater than or equal to 1"]),
    ("train --training.precision fp32", ["`--training.precision` is a group", "--training.precision.dtype"]),
    ("train --data pydocs", ["`--data` is a group", "--data.source"]),
    ("train --optimzer.lr 1", ["`--optimzer.lr` is not an option", "--training.optimizer.lr"]),
    ("estimate params gpt9", ["known size `gpt9`", "Did you mean `gpt2`", "llama-3-8b"]),
    ("estimate memory gpt2 --batch x", ["`batch`", "valid integer", "got 'x'"]),
    ("estimate flops gpt2 more", ["`more` is not expected here"]),
    ("data inspect", ["`source` is required"]),
    ("data inspect nowhere", ["no file or folder at nowhere", "stories"]),
    ("data inspect empty.txt", ["no usable documents"]),
    ("data inspect binary.txt", ["binary.txt:1", "binary file"]),
    ("data validate bad.jsonl", ["bad.jsonl: 1 problem, 0 usable documents"]),
    ("tokenizer train empty.txt", ["no text to learn from"]),
    ("tokenizer train nowhere", ["no file or folder at nowhere"]),
    ("tokenizer inspect binary.txt", ["binary.txt is no tokenizer", "tokenizer.json"]),
    ("tokenizer encode nowhere hi", ["nowhere"]),
    ("runs show", ["`path` is required"]),
    ("runs show nowhere", ["nowhere is not a run folder"]),
    ("runs list --bogus", ["`--bogus` is not an option"]),
    ("catalogue --area XX", ["no area `XX`"]),
])  # fmt: skip
def test_the_message_says_what_where_and_what_next(words, parts, capsys, folder):
    before = sorted(folder.iterdir())
    assert main(words.split()) in (1, 2, 3)
    caught = capsys.readouterr()
    for part in parts:
        assert part in caught.err, caught.err
    assert "Traceback" not in caught.err
    assert sorted(folder.iterdir()) == before  # wrong input leaves nothing behind


def available():
    for verb in VERBS:
        try:
            load_command(verb)
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("groundup.commands."):
                raise
            continue
        yield verb


@pytest.mark.parametrize("verb", list(available()))
def test_help_names_every_option_and_what_it_is(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(load_command(verb), verb, ["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.startswith(f"usage: groundup {verb}")
    for name, field in load_command(verb).model_fields.items():
        assert field.description, f"{verb}: {name} has no help"
        spelled = (field.alias or name).replace("_", "-")
        assert f"--{spelled}" in text or name.upper() in text or field.alias, f"{verb}: {name}"
