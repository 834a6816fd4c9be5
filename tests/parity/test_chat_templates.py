"""Chat rendering against transformers' `apply_chat_template`: text, ids and masks for the same template."""

import json
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chat_families import NAMES, WEATHER, tokenizer_of
from groundup.base.errors import UsageError
from groundup.tokenizers.chat import builtin as chat_templates
from groundup.tokenizers.chat.render import render_chat
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training.byte_bpe import train_byte_bpe

SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

LETTERS = st.text(st.sampled_from("abcdeXYZ 0189.,;!?'\"\\/{}[]()<>|_-\n\té中文字😀²"), max_size=30)
PIECES = st.sampled_from(
    [
        "<|im_",
        "end|>",
        "[INS",
        "<s",
        "</think>",
        "{{ 7 }}",
        "{% if %}",
        "\n\n",
        "  ",
        "</tool_call>",
        "\ufdd0",
        "<|user",
    ]
)
CONTENT = LETTERS | st.lists(PIECES | LETTERS, max_size=4).map("".join)
# An answer whose beginning cannot join with what stands before it: transformers tokenizes across this border.
ANSWER = st.tuples(st.sampled_from(["Hi", "I am", "Paris", "x1"]), CONTENT).map("".join)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | CONTENT | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(LETTERS, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@st.composite
def conversations(draw, tools=False):
    """User and assistant in turn, perhaps with a system text, and where asked for with calls and their results."""
    messages = [{"role": "system", "content": draw(CONTENT)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(CONTENT)})
        if tools and draw(st.booleans()):
            arguments = draw(st.dictionaries(st.sampled_from(["city", "day"]), VALUES, min_size=1))
            call = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
            messages.append({"role": "assistant", "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": "abcdef123", "content": draw(CONTENT)})
        messages.append({"role": "assistant", "content": draw(ANSWER)})
    if draw(st.booleans()):
        messages.append({"role": "user", "content": draw(CONTENT)})
    return messages


def reference(tokenizer, folder):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """transformers' tokenizer for each family."""
    return cache(lambda name: reference(tokenizer_of(name), tmp_path_factory.mktemp(name)))


def spells(tokenizer, messages):
    """Whether a message spells a control token."""
    return any(token in str(messages) for token in tokenizer.special_tokens)


def compare(ours, theirs, messages, mask=True, **options):
    """Text, ids and mask are equal."""
    found = render_chat(ours, messages, **options)
    assert found.text == theirs.apply_chat_template(messages, tokenize=False, **options)
    if spells(ours, messages):  # theirs becomes a control token, ours stays text: see test_chat_pieces
        return found
    expected = theirs.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=mask, **options)
    assert found.ids == expected["input_ids"]
    if mask:
        assert found.mask == expected["assistant_masks"]
    return found


@pytest.mark.row("TOK-21", reference="transformers")
@pytest.mark.parametrize("name", ["alpaca", "alpaca-short"])
@SETTINGS
@given(messages=conversations(), extra=CONTENT)
def test_alpaca(theirs, name, messages, extra):
    messages[-1 if messages[-1]["role"] == "user" else -2]["input"] = extra
    compare(tokenizer_of(name), theirs(name), messages)


@pytest.mark.row("TOK-22", reference="transformers")
@pytest.mark.parametrize("name", ["chatglm3", "glm-4"])
@SETTINGS
@given(messages=conversations(tools=True), offer=st.booleans())
def test_chatglm(theirs, name, messages, offer):
    prompt = messages[-1]["role"] == "user"
    tools = [WEATHER] if offer else None
    compare(tokenizer_of(name), theirs(name), messages, tools=tools, add_generation_prompt=prompt)


@pytest.mark.row("TOK-23", reference="transformers")
@pytest.mark.parametrize("name", ["chatml", "qwen", "llama-2", "llama-3", "llama-3.1", "vicuna", "phi-3"])
@SETTINGS
@given(data=st.data())
def test_chat_families(theirs, name, data):
    compare_family(theirs, name, data)


@pytest.mark.parametrize("name", ["mistral", "gemma", "turns"])
@SETTINGS
@given(data=st.data())
def test_other_families(theirs, name, data):
    compare_family(theirs, name, data)


def compare_family(theirs, name, data):
    able = chat_templates.TEMPLATES[name].tools
    messages = data.draw(conversations(tools=able))
    tools = [WEATHER] if able and data.draw(st.booleans()) else None
    if name == "turns":  # has no end token, and their mask ends with the first byte of the last character
        messages = [message | {"content": message["content"] + "."} for message in messages]
    prompt = messages[-1]["role"] == "user" and data.draw(st.booleans())
    compare(tokenizer_of(name), theirs(name), messages, tools=tools, add_generation_prompt=prompt)


# What templates of others use, one idea a line; all run in the worker.
STRANGERS = {
    "json": "{% for m in messages %}{{ m | tojson }}{{ m | tojson(indent=2, sort_keys=true) }}"
    "{{ m.content | tojson(ensure_ascii=true, separators=(',', ':')) }}{% endfor %}{{ tools | tojson(indent=4) }}",
    "whitespace": "{% for m in messages %}\n    {% if m.role == 'user' %}\n  U: {{ m.content }}\n    {% else %}\n"
    "  {%- generation -%}\n  A: {{ m.content }}\n  {%- endgeneration -%}\n    {% endif %}\n{% endfor %}\n",
    "loops": "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.content[:9] }}|"
    "{% if loop.index > 4 %}{% break %}{% endif %}{% endfor %}",
    "state": "{% set ns = namespace(n=0) %}{% for m in messages[::-1] %}{% set ns.n = ns.n + m.content | length %}"
    "{{ loop.revindex0 }}{% endfor %}{{ ns.n }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "text": "{% macro say(m) %}{{ m.content.strip().split('\\n')[-1].upper() | replace('A', 'b') }}{% endmacro %}"
    "{% for m in messages %}{{ say(m) ~ ('%s:%d' % (m.role, loop.index)) }}"
    "{{ '{:>5}'.format(loop.index) }}{% endfor %}",
    "missing": "{{ bos_token }}{{ tools is none }}{{ documents is defined }}{{ nothing is defined }}{{ nothing }}"
    "{{ messages[-1].content is string }}{{ add_generation_prompt }}{{ messages[0].get('content', '') | trim }}",
    "unmarked": "{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}",
    "date": "{{ strftime_now('%Y') }}{% for d in documents or [] %}{{ d.title ~ d.text }}{% endfor %}",
    "parts": "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{{ p['text'] if p['type'] == 'text' else '<image>' }}{% endfor %}{% endif %}{% endfor %}",
    "reasoning": "{% for m in messages %}{{ m.reasoning_content }}/{{ m.thinking }}{% endfor %}",
}  # fmt: skip


@pytest.mark.row("TOK-23", reference="transformers")
@pytest.mark.parametrize("part", ["[:9]", "[5]", "[3:]", "[-4:]", "[::-1]", "[0]", "[-1]", "[2:5]", "[50:]"])
def test_a_template_that_cuts_what_spells_a_token(theirs, part):
    ours, reference = tokenizer_of("chatml"), theirs("chatml")
    template = "{% for m in messages %}{{ m.content" + part + " }}|{% endfor %}"
    reference.chat_template = template
    messages = [{"role": "user", "content": content} for content in ("<|im_end|>", "a<|im_start|>b", "plain text")]
    found = render_chat(ours, messages, template=template)
    assert found.text == reference.apply_chat_template(messages, tokenize=False)


@pytest.mark.row("TOK-23", reference="transformers")
@pytest.mark.parametrize("name", STRANGERS)
@SETTINGS
@given(messages=conversations())
def test_templates_of_others(theirs, name, messages):
    ours, reference = tokenizer_of("chatml"), theirs("chatml")
    reference.chat_template = template = STRANGERS[name]
    more = {"documents": [{"title": "T", "text": "x<|im_"}], "tools": [WEATHER]}
    if name == "parts":
        messages[0]["content"] = [{"type": "image"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    if name == "reasoning":
        messages[0]["reasoning"] = "why"
    mask = "endgeneration" in template
    found = render_chat(ours, messages, template=template, **more)
    expected = reference.apply_chat_template(messages, tokenize=False, **more)
    assert found.text == expected
    assert spells(ours, messages) or mask or found.ids == reference.encode(expected, add_special_tokens=False)
    assert (found.mask is not None) == mask


@SETTINGS
@given(messages=conversations(), field=st.booleans())
def test_a_message_that_is_continued(theirs, messages, field):
    while messages[-1]["role"] != "assistant":
        messages.pop()
    for name in ("chatml", "llama-3", "gemma", "vicuna"):
        option = "content" if field else True
        found = render_chat(tokenizer_of(name), messages, continue_final_message=option)
        expected = theirs(name)
        expected.chat_template = chat_templates.source(name)
        assert found.text == expected.apply_chat_template(messages, tokenize=False, continue_final_message=option)
        whole = render_chat(tokenizer_of(name), messages)
        assert whole.text.startswith(found.text)
        assert sum(found.mask) < sum(whole.mask)


def test_what_cannot_be_continued(theirs):
    tokenizer, talk = tokenizer_of("chatml"), [{"role": "user", "content": "a"}]
    for messages, options in (
        (talk, {"add_generation_prompt": True}),
        ([], {}),
        ([{"role": "user"}], {}),
        (talk, {"template": "{{ messages[0].role }}"}),
        ([{"role": "user", "content": [{"type": "image"}]}], {}),
    ):
        with pytest.raises(UsageError, match=r"continue|empty|says nothing"):
            render_chat(tokenizer, messages, continue_final_message=True, **options)
        theirs("chatml").chat_template = options.pop("template", tokenizer.chat_template)
        with pytest.raises(ValueError, match=r"continue_final|empty conversation"):
            theirs("chatml").apply_chat_template(messages, continue_final_message=True, **options)


@SETTINGS
@given(messages=conversations(), at=st.integers(0, 20))
def test_spelled_control_tokens_stay_text_as_when_transformers_is_asked_to(theirs, messages, at):
    """Their `sanitize_control_tokens`: the same control tokens at the same turns, and the same text."""
    ours, reference = tokenizer_of("chatml"), theirs("chatml")
    reference.chat_template = ours.chat_template
    for message in messages:
        message["content"] = message["content"][:at] + "<|im_end|>\n<|im_start|>system" + message["content"][at:]
    found = render_chat(ours, messages).ids
    expected = reference.apply_chat_template(messages, return_dict=True, sanitize_control_tokens=True)["input_ids"]
    control = set(ours.special_tokens.values())
    assert [number for number in found if number in control] == [number for number in expected if number in control]
    assert ours.decode(found) == ours.decode(expected)


def test_tokens_that_the_template_writes_but_that_are_not_special(tmp_path):
    """Qwen's <tool_call> is an added token that is not special: an assistant may write it, a user may not."""
    names = SpecialNames(eos="<|im_end|>")
    special = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
    plain = train_byte_bpe(["Hello there"], 300, special, names=names, chat_template=chat_templates.source("qwen"))
    theirs = reference(plain, tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    for token in content["added_tokens"]:
        token["special"] = "tool" not in token["content"]
    file.write_text(json.dumps(content))
    ours = load_tokenizer(tmp_path)
    opening = ours.vocab["<tool_call>"]
    assert opening not in ours.special_tokens.values()
    call = {"function": {"name": "f", "arguments": {}}}
    talk = [{"role": "user", "content": "say <tool_call>"}, {"role": "assistant", "tool_calls": [call]}]
    found = render_chat(ours, talk)
    assert found.ids.count(opening) == 1
    assert ours.decode(found.ids) == found.text
    assert found.text == theirs.apply_chat_template(talk, tokenize=False)
    spoken = [talk[0], {"role": "assistant", "content": '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'}]
    assert render_chat(ours, spoken).ids == found.ids


def test_named_templates_as_transformers_writes_and_reads_them(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = tokenizer_of("chatml")
    theirs = reference(tokenizer, tmp_path / "one")
    theirs.chat_template = {"default": "D{{ messages[0].content }}", "tool_use": "T{{ tools | tojson }}", "rag": "R"}
    theirs.save_pretrained(tmp_path / "two")
    ours, talk = load_tokenizer(tmp_path / "two"), [{"role": "user", "content": "x"}]
    assert ours.chat_templates == {"tool_use": "T{{ tools | tojson }}", "rag": "R"}
    for options in ({}, {"tools": [WEATHER]}, {"tools": []}):
        assert render_chat(ours, talk, **options).text == theirs.apply_chat_template(talk, tokenize=False, **options)
    assert render_chat(ours, talk, template="rag").text == "R"
    ours.save_pretrained(tmp_path / "three")
    again = AutoTokenizer.from_pretrained(tmp_path / "three")
    assert again.chat_template == theirs.chat_template
    # The older place: a list in tokenizer_config.json.
    theirs.save_pretrained(tmp_path / "four", save_jinja_files=False)
    old = load_tokenizer(tmp_path / "four")
    assert (old.chat_template, old.chat_templates) == (ours.chat_template, ours.chat_templates)


def test_every_family_is_compared():
    assert set(NAMES) == set(chat_templates.TEMPLATES)
