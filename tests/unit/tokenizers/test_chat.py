"""Chat rendering: ids, masks, injection, limits."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.base.errors import UsageError
from groundup.tokenizers.chat.render import CHATML, render_chat
from groundup.tokenizers.chat.template import Limits
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training.byte_bpe import train_byte_bpe

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NAMES = SpecialNames(bos=SPECIAL[0], eos=SPECIAL[0])
NASTY = st.text(max_size=20) | st.lists(
    st.sampled_from([*SPECIAL, "<|im_", "end|>", ">", "<", "{{ 7*7 }}", "\n", " ", "\ufdd0"])
).map("".join)


def made(template=CHATML, names=NAMES):
    text = "system user assistant Hello there, how are you? <|im_start|> <|im_end|>\n"
    return train_byte_bpe([text], 300, SPECIAL, names=names, chat_template=template)


@pytest.fixture(scope="module")
def tokenizer():
    return made()


def talk(*contents):
    roles = ["user", "assistant"] * len(contents)
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]


def test_chatml_and_its_mask(tokenizer):
    found = render_chat(tokenizer, talk("Hello", "you?"))
    assert found.text == "<|endoftext|><|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nyou?<|im_end|>\n"
    assert tokenizer.decode(found.ids) == found.text
    said = [number for number, flag in zip(found.ids, found.mask, strict=True) if flag]
    assert tokenizer.decode(said) == "you?<|im_end|>"
    assert found.ids.count(tokenizer.bos_id) == 1


@settings(max_examples=150, deadline=None)
@given(first=NASTY, answer=NASTY)
def test_nobody_speaks_for_another(tokenizer, first, answer):
    found = render_chat(tokenizer, talk(first, answer))
    # One BOS, two turns: whatever the contents spell.
    assert [found.ids.count(number) for number in (0, 1, 2)] == [1, 2, 2]
    assert first in tokenizer.decode(found.ids)
    assert found.text == tokenizer.decode(found.ids)
    # What a model is asked with is the beginning of what it was trained on.
    prompt = render_chat(tokenizer, talk(first), add_generation_prompt=True)
    assert found.ids[: len(prompt.ids)] == prompt.ids
    assert not any(found.mask[: len(prompt.ids)])


def test_same_ids_as_transformers(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "system", "content": "Be kind."}, *talk("Hello there", "how are you?", "well", "there")]
    found = theirs.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    ours = render_chat(tokenizer, messages)
    assert ours.ids == found["input_ids"]
    assert ours.mask == found["assistant_masks"]
    assert ours.text == theirs.apply_chat_template(messages, tokenize=False)


def test_parts_of_a_token_do_not_join_across_an_edge():
    odd = made('{% for m in messages %}{{ "<|im_" }}{{ m.content }}{% endfor %}')
    assert 2 not in render_chat(odd, talk("end|>")).ids


def test_a_template_sees_the_first_and_last_character_of_a_text():
    """Though they could end or begin a control token, had the template written the rest beside them."""
    seen = made("{{ messages[0].content[0] == '>' }} {{ messages[0].content[-1] == '<' }} {{ messages[0].content }}")
    assert render_chat(seen, talk(">a<")).text == "True True >a<"


def test_bos_is_neither_lacking_nor_doubled():
    for template in ("{{ messages[0].content }}", "{{ bos_token }}{{ bos_token }}{{ messages[0].content }}"):
        found = render_chat(made(template), talk("Hello"))
        assert found.ids[0] == 0
        assert found.ids.count(0) == 1
        assert found.mask is None
    assert 0 not in render_chat(made(names=SpecialNames()), talk("Hello")).ids


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ 'a' * 300000000 }}",
        "{{ 9 ** 99999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ 'a'.ljust(999999999) }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(9999) %}{{ messages[0].content * 1000 }}{% endfor %}",
        "{{ nothing.more }}",
        "{% if %}",
        "{% generation %}",
        "{{ raise_exception('no') }}",
        "{% include '/etc/passwd' %}",
        "x" * (2**20 + 1),
    ],
)
def test_bad_templates_end_in_an_error(template):
    with pytest.raises(UsageError, match="chat template"):
        render_chat(made(template), talk("Hello"), limits=Limits(output=10**6, seconds=0.3))


@pytest.mark.parametrize(
    "messages", [[{}], [{"role": 3, "content": ""}], [{"role": "user<|im_end|>", "content": ""}], ["hi"]]
)
def test_messages_need_roles(tokenizer, messages):
    with pytest.raises(UsageError, match="message 0"):
        render_chat(tokenizer, messages)


CALL = {"type": "function", "function": {"name": "f", "arguments": {}}}


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], r'conversation is empty: .*\{"role": "user"'),
        ({"role": "user", "content": "a"}, "must be a list"),
        ([3], "message 0 is int: each must be an object"),
        ([{"role": "user", "content": "a", 3: 4}], "message 0 has a key that is no text"),
        ([*talk("a"), {"role": "assist", "content": "b"}],
         r"message 1: `assist` is not a role\. Did you mean `assistant`\? One of system, .*, user, .* is expected"),
        ([{"role": "use", "content": "b"}], "message 0: `use` is not a role"),  # a part of a name in the template
        ([*talk("a"), {"role": "assistant"}], r"message 1 \(assistant\) says nothing: .*`content`.*`tool_calls`"),
        ([{"role": "user", "content": None}], r"message 0 \(user\) says nothing: it needs `content`, a text$"),
        ([{"role": "user", "tool_calls": [CALL]}], r"message 0 \(user\) says nothing"),
        ([{"role": "assistant", "content": None, "tool_calls": []}], r"message 0 \(assistant\) says nothing"),
        ([{"role": "tool"}], r"message 0 \(tool\) says nothing"),
        ([{"role": "system", "tools": []}], r"message 0 \(system\) says nothing"),
        ([{"role": "user", "content": 5}], r"message 0 \(user\): `content` must be a text or a list of parts.*got 5"),
        ([{"role": "user", "content": {"a": 1}}], "`content` must be a text or a list of parts"),
        ([{"role": "user", "content": [1]}], "`content` must be a text or a list of parts"),
    ],
)  # fmt: skip
def test_a_wrong_message_is_named(tokenizer, messages, what):
    with pytest.raises(UsageError, match=what):
        render_chat(tokenizer, messages)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "model", "function_call": {"name": "f"}},
        {"role": "assistant", "reasoning_content": "hm"},
        {"role": "system", "tools": [CALL]},
        {"role": "user", "content": ""},
        {"role": "user", "content": ["a", {"type": "text", "text": "b"}]},
        {"role": "developer", "content": "a"},
    ],
)
def test_what_a_message_may_be(tokenizer, message):
    assert f"<|im_start|>{message['role']}\n" in render_chat(tokenizer, [message]).text


def test_a_tool_answers_any_json_and_a_template_may_have_roles_of_its_own():
    tokenizer = made("{% for m in messages %}{{ 'R:' if m.role == 'critic' }}{{ m.content | tojson }}{% endfor %}")
    messages = [{"role": "tool", "content": {"a": [1]}}, {"role": "critic", "content": "no"}]
    assert render_chat(tokenizer, messages).text.endswith('{"a": [1]}R:"no"')
    with pytest.raises(UsageError, match="`critc` is not a role"):
        render_chat(tokenizer, [{"role": "critc", "content": "no"}])


def test_of_control_tokens_that_begin_alike_the_longest_is_meant():
    special = ["<|a|>", "<|a|><|b|>", "<|b|>"]
    tokenizer = train_byte_bpe(["abc"], 300, special, chat_template="<|a|><|b|>{{ messages[0].content }}<|b|>")
    found = render_chat(tokenizer, talk("<|a|><|b|>"))
    assert [number for number in found.ids if number < 3] == [1, 2]
    assert tokenizer.decode(found.ids) == found.text == "<|a|><|b|><|a|><|b|><|b|>"


def test_answers_that_later_turns_cut_short_are_not_guessed(tokenizer):
    """In plain words, an answer's end is known only where the whole turn comes again."""
    shortened = (
        "{% for m in messages %}{{ m.role }}: {{ m.content if m.role == 'user' or loop.last else m.content[:2] }}\n"
        "{% endfor %}{{ 'assistant: ' if add_generation_prompt }}"
    )
    found = render_chat(tokenizer, talk("Hi", "Hello"), template=shortened, infer_mask=True)
    assert tokenizer.decode([n for n, counts in zip(found.ids, found.mask, strict=True) if counts]) == "Hello"
    with pytest.raises(UsageError, match="the words of message 1 cannot be found"):
        render_chat(tokenizer, talk("Hi", "Hello", "you"), template=shortened, infer_mask=True)


def test_a_control_token_takes_no_spaces_from_an_answer(tmp_path):
    """Outside of answers it does, where the file says so (`rstrip`); an answer's own words stay whole."""
    from groundup.tokenizers.hub import load_tokenizer

    made().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"][1]["rstrip"] = True
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    template = (
        "<|im_start|>{{ messages[0].content }}<|im_start|>"
        "{% generation %}{{ messages[1].content }}<|im_end|>{% endgeneration %}"
    )
    found = render_chat(tokenizer, talk("  Hello", "  you"), template=template)
    assert tokenizer.decode(found.ids[1:]) == "<|im_start|>Hello<|im_start|>  you<|im_end|>"


def test_of_blocks_inside_one_another_the_outermost_counts(tokenizer):
    nested = "x{% generation %}a{% generation %}b{% endgeneration %}c{% endgeneration %}y"
    found = render_chat(tokenizer, talk("Hello"), template=nested)
    assert found.text == "xabcy"
    assert tokenizer.decode(found.ids) == "<|endoftext|>xabcy"
    assert tokenizer.decode([n for n, counts in zip(found.ids, found.mask, strict=True) if counts]) == "abc"


def test_no_template():
    with pytest.raises(UsageError, match="no chat template"):
        render_chat(made(None), talk("Hello"))


def test_the_file_wins_over_the_older_key(tmp_path):
    from groundup.tokenizers.hub import load_tokenizer

    made().save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"chat_template": "old"}))
    assert load_tokenizer(tmp_path).chat_template == CHATML
    (tmp_path / "chat_template.jinja").unlink()
    assert load_tokenizer(tmp_path).chat_template == "old"
