"""The built-in chat templates: each family's published form, written out by hand, and what the loss covers."""

import json
import re

import pytest

from chat_families import CALL, NAMES, TALK, TOOL_TALK, WEATHER, tokenizer_of
from groundup.base.errors import UsageError
from groundup.tokenizers.chat import builtin as chat_templates
from groundup.tokenizers.chat.render import render_chat
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training.byte_bpe import train_byte_bpe

BELOW = "Below is an instruction that describes a task"
WRITE = "Write a response that appropriately completes the request.\n\n"
HEAD = "<|start_header_id|>{}<|end_header_id|>\n\n"
DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
FUNCTION = json.dumps(WEATHER["function"])
INDENTED = json.dumps(WEATHER["function"], indent=4)
HERMES = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    f"signatures within <tools></tools> XML tags:\n<tools>\n{json.dumps(WEATHER)}\n</tools>\n\nFor each function call, "
    "return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
)


def rendered(name, messages, **options):
    return render_chat(tokenizer_of(name), messages, **options).text


def ask(*contents, **more):
    """User and assistant in turn."""
    roles = ["user", "assistant"] * len(contents)
    return [{"role": role, "content": content} | more for role, content in zip(roles, contents, strict=False)]


def said(name, messages, **options):
    """What the mask covers, decoded."""
    tokenizer = tokenizer_of(name)
    found = render_chat(tokenizer, messages, **options)
    return tokenizer.decode([number for number, counts in zip(found.ids, found.mask, strict=True) if counts])


# A conversation with a system text and two answers, and a third question to be answered.
PUBLISHED = {
    "chatml": "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
    "<|im_start|>assistant\nHi there<|im_end|>\n<|im_start|>user\nWho are you<|im_end|>\n<|im_start|>assistant\n"
    "I am an assistant<|im_end|>\n<|im_start|>user\nAnother question<|im_end|>\n<|im_start|>assistant\n",
    "vicuna": "<s>You are a helpful assistant USER: Hello ASSISTANT: Hi there</s>USER: Who are you ASSISTANT: "
    "I am an assistant</s>USER: Another question ASSISTANT:",
    "llama-2": "<s>[INST] <<SYS>>\nYou are a helpful assistant\n<</SYS>>\n\nHello [/INST] Hi there </s><s>[INST] "
    "Who are you [/INST] I am an assistant </s><s>[INST] Another question [/INST]",
    "llama-3": "<|begin_of_text|>" + HEAD.format("system") + "You are a helpful assistant<|eot_id|>"
    + HEAD.format("user") + "Hello<|eot_id|>" + HEAD.format("assistant") + "Hi there<|eot_id|>" + HEAD.format("user")
    + "Who are you<|eot_id|>" + HEAD.format("assistant") + "I am an assistant<|eot_id|>" + HEAD.format("user")
    + "Another question<|eot_id|>" + HEAD.format("assistant"),
    "llama-3.1": "<|begin_of_text|>" + HEAD.format("system") + DATES + "You are a helpful assistant<|eot_id|>"
    + HEAD.format("user") + "Hello<|eot_id|>" + HEAD.format("assistant") + "Hi there<|eot_id|>" + HEAD.format("user")
    + "Who are you<|eot_id|>" + HEAD.format("assistant") + "I am an assistant<|eot_id|>" + HEAD.format("user")
    + "Another question<|eot_id|>" + HEAD.format("assistant"),
    "mistral": "<s>[INST] Hello[/INST] Hi there</s>[INST] Who are you[/INST] I am an assistant</s>"
    "[INST] You are a helpful assistant\n\nAnother question[/INST]",
    "chatglm3": "[gMASK]sop<|system|>\n You are a helpful assistant<|user|>\n Hello<|assistant|>\n Hi there<|user|>\n "
    "Who are you<|assistant|>\n I am an assistant<|user|>\n Another question<|assistant|>",
    "glm-4": "[gMASK]<sop><|system|>\nYou are a helpful assistant<|user|>\nHello<|assistant|>\nHi there<|user|>\n"
    "Who are you<|assistant|>\nI am an assistant<|user|>\nAnother question<|assistant|>",
    "phi-3": "<s><|system|>\nYou are a helpful assistant<|end|>\n<|user|>\nHello<|end|>\n<|assistant|>\nHi there"
    "<|end|>\n<|user|>\nWho are you<|end|>\n<|assistant|>\nI am an assistant<|end|>\n<|user|>\n"
    "Another question<|end|>\n<|assistant|>\n",
    "gemma": "<bos><start_of_turn>user\nYou are a helpful assistant\n\nHello<end_of_turn>\n<start_of_turn>model\n"
    "Hi there<end_of_turn>\n<start_of_turn>user\nWho are you<end_of_turn>\n<start_of_turn>model\nI am an assistant"
    "<end_of_turn>\n<start_of_turn>user\nAnother question<end_of_turn>\n<start_of_turn>model\n",
    "turns": "You are a helpful assistant\n\nUser: Hello\n\nAssistant: Hi there\n\nUser: Who are you\n\nAssistant: "
    "I am an assistant\n\nUser: Another question\n\nAssistant:",
}  # fmt: skip
PUBLISHED["qwen"] = PUBLISHED["chatml"]


@pytest.mark.row("TOK-22", reference="published: the chat templates of THUDM/chatglm3-6b and THUDM/glm-4-9b-chat")
@pytest.mark.parametrize("name", ["chatglm3", "glm-4"])
def test_the_form_of_chatglm(name):
    assert rendered(name, TALK, add_generation_prompt=True) == PUBLISHED[name]


@pytest.mark.row("TOK-23", reference="published: the prompt forms of Meta, OpenAI, Qwen, LMSYS, Microsoft")
@pytest.mark.parametrize("name", ["llama-2", "llama-3", "llama-3.1", "chatml", "qwen", "vicuna", "phi-3"])
def test_the_published_forms(name):
    assert rendered(name, TALK, add_generation_prompt=True) == PUBLISHED[name]


@pytest.mark.parametrize("name", ["mistral", "gemma", "turns"])
def test_the_forms_of_others(name):
    assert rendered(name, TALK, add_generation_prompt=True) == PUBLISHED[name]


@pytest.mark.row("TOK-21", reference="published: Taori et al. 2023 (Alpaca), the two prompts")
def test_alpaca_with_and_without_input():
    plain = f"<s>{BELOW}. {WRITE}### Instruction:\nName a colour.\n\n### Response:"
    assert rendered("alpaca", ask("Name a colour.")) == plain
    assert rendered("alpaca", ask("Name a colour.", input="")) == plain
    assert rendered("alpaca", ask("Name a colour.", "Red.")) == plain + "Red.</s>"
    given = [{"role": "user", "content": "Sort.", "input": "b, a"}]
    paired = f"<s>{BELOW}, paired with an input that provides further context. {WRITE}"
    asked = "### Instruction:\nSort.\n\n### Input:\nb, a\n\n### Response:"
    assert rendered("alpaca", given) == paired + asked
    assert rendered("alpaca", TALK[:2]) == "<s>You are a helpful assistant\n\n### Instruction:\nHello\n\n### Response:"
    twice = rendered("alpaca", [*given, *ask("", "a, b", "Again.")[1:]])
    assert twice == paired + asked + "a, b</s>\n\n### Instruction:\nAgain.\n\n### Response:"


@pytest.mark.row("TOK-21", reference="published: Raschka 2024 (Build a Large Language Model), listing 7.2")
def test_alpaca_as_in_the_book():
    given = [{"role": "user", "content": "Sort.", "input": "b, a"}, {"role": "assistant", "content": "a, b"}]
    assert rendered("alpaca-short", given) == (
        f"{BELOW}. {WRITE}### Instruction:\nSort.\n\n### Input:\nb, a\n\n### Response:\na, b<|endoftext|>"
    )


def test_texts_of_their_own():
    """What stands there where the conversation has no system text."""
    assert rendered("qwen", ask("Hello")) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHello<|im_end|>\n"
    )
    assert rendered("chatml", ask("Hello")) == "<|im_start|>user\nHello<|im_end|>\n"
    assert rendered("vicuna", ask("Hello"), add_generation_prompt=True) == f"<s>{VICUNA} USER: Hello ASSISTANT:"
    assert rendered("llama-3.1", ask("Hello"), date_string="01 Jan 2025").startswith(
        "<|begin_of_text|>" + HEAD.format("system") + DATES.replace("26 Jul 2024", "01 Jan 2025") + "<|eot_id|>"
    )
    assert rendered("llama-2", ask(" Hello ", " Hi ")) == "<s>[INST] Hello [/INST] Hi </s>"
    assert rendered("phi-3", ask("Hello", "Hi")) == "<s><|user|>\nHello<|end|>\n<|assistant|>\nHi<|end|>\n<|endoftext|>"


@pytest.mark.row("TOK-23", reference="published: Qwen 2.5's function calling (Hermes form), Llama 3.1's JSON calling")
def test_tools_of_qwen_and_llama():
    qwen = rendered("qwen", TOOL_TALK, tools=[WEATHER])
    assert qwen == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.\n\n"
        + HERMES
        + "<|im_end|>\n<|im_start|>user\nWeather?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        '{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>\n<|im_start|>user\n'
        "<tool_response>\nsunny\n</tool_response><|im_end|>\n<|im_start|>assistant\nIt is sunny.<|im_end|>\n"
    )
    begin = "<|begin_of_text|>" + HEAD.format("system") + "Environment: ipython\n" + DATES
    call_form = (
        'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.'
        "Do not use variables.\n\n"
    )
    tool = json.dumps(WEATHER, indent=4) + "\n\n"
    call = HEAD.format("assistant") + '{"name": "get_weather", "parameters": {"city": "Paris"}}<|eot_id|>'
    result = HEAD.format("ipython") + '"sunny"<|eot_id|>' + HEAD.format("assistant") + "It is sunny.<|eot_id|>"
    assert rendered("llama-3.1", TOOL_TALK, tools=[WEATHER]) == (
        begin + "<|eot_id|>" + HEAD.format("user")
        + "Given the following functions, please respond with a JSON for a function call with its proper arguments "
        "that best answers the given prompt.\n\n" + call_form + tool + "Weather?<|eot_id|>" + call + result
    )  # fmt: skip
    assert rendered("llama-3.1", TOOL_TALK, tools=[WEATHER], tools_in_user_message=False) == (
        begin + "You have access to the following functions. To call a function, please respond with JSON for a "
        "function call." + call_form + tool + "<|eot_id|>" + HEAD.format("user") + "Weather?<|eot_id|>" + call + result
    )
    search = {"function": {"name": "brave_search", "arguments": {"query": "sun"}}}
    built_in = rendered(
        "llama-3.1", [*ask("Sun?"), {"role": "assistant", "tool_calls": [search]}], builtin_tools=["brave_search"]
    )
    assert "Environment: ipython\nTools: brave_search\n\nCutting" in built_in
    assert built_in.endswith(HEAD.format("assistant") + '<|python_tag|>brave_search.call(query="sun")<|eom_id|>')


def test_tools_of_mistral():
    assert rendered("mistral", TOOL_TALK, tools=[WEATHER]) == (
        f'<s>[AVAILABLE_TOOLS] [{{"type": "function", "function": {FUNCTION}}}][/AVAILABLE_TOOLS][INST] Weather?[/INST]'
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "call00001"}]</s>'
        '[TOOL_RESULTS] {"content": sunny, "call_id": "call00001"}[/TOOL_RESULTS] It is sunny.</s>'
    )
    with pytest.raises(UsageError, match="9 letters"):
        rendered("mistral", [*ask("Weather?"), {"role": "assistant", "tool_calls": [CALL | {"id": "x"}]}])


@pytest.mark.row("TOK-22", reference="published: PROMPT.md of ChatGLM3; the chat template of THUDM/glm-4-9b-chat")
def test_tools_of_chatglm():
    introduced = "Answer the following questions as best as you can. You have access to the following tools:"
    listed = json.dumps([WEATHER["function"]], indent=4)
    after = (
        '<|user|>\n Weather?<|assistant|>get_weather\n ```python\ntool_call(city="Paris")\n```<|observation|>\n sunny'
        "<|assistant|>\n It is sunny.</s>"
    )
    assert rendered("chatglm3", TOOL_TALK, tools=[WEATHER]) == f"[gMASK]sop<|system|>\n {introduced}\n{listed}{after}"
    # Their own code keeps the tools in the system message, and the tool's name in `metadata`.
    theirs = [
        {"role": "system", "content": introduced, "tools": [WEATHER["function"]]},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "metadata": "get_weather", "content": '```python\ntool_call(city="Paris")\n```'},
        {"role": "observation", "content": "sunny"},
        {"role": "assistant", "metadata": "", "content": "It is sunny."},
    ]
    assert rendered("chatglm3", theirs) == f"[gMASK]sop<|system|>\n {introduced}\n{listed}{after}"
    assert rendered("glm-4", TOOL_TALK, tools=[WEATHER]) == (
        "[gMASK]<sop><|system|>\n你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
        "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具\n\n## get_weather\n\n"
        f"{INDENTED}\n在调用上述函数时，请使用 Json 格式表示调用的参数。<|user|>\nWeather?<|assistant|>get_weather\n"
        '{"city": "Paris"}<|observation|>\nsunny<|assistant|>\nIt is sunny.<|user|>'
    )
    within = [{"role": "system", "content": "Be brief.", "tools": [WEATHER]}, *ask("Hello")]
    assert rendered("glm-4", within).endswith("调用的参数。<|system|>\nBe brief.<|user|>\nHello")


# What stands before and after the words that the assistant learns to say, given what the generation prompt ends with.
AROUND = {
    "turns": (" ", "", ""),
    "chatml": ("", "<|im_end|>", "<|im_end|>"),
    "qwen": ("", "<|im_end|>", "<|im_end|>"),
    "alpaca": ("", "</s>", "</s>"),
    "alpaca-short": ("", "<|endoftext|>", "<|endoftext|>"),
    "vicuna": (" ", "</s>", "</s>"),
    "llama-2": (" ", " </s>", " </s>"),
    "llama-3": ("", "<|eot_id|>", "<|eot_id|>"),
    "llama-3.1": ("", "<|eot_id|>", "<|eot_id|>"),
    "mistral": (" ", "</s>", "</s>"),
    "chatglm3": ("\n ", "<|user|>", "</s>"),
    "glm-4": ("\n", "<|user|>", "<|user|>"),
    "phi-3": ("", "<|end|>", "<|end|>"),
    "gemma": ("", "<end_of_turn>", "<end_of_turn>"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_covers_the_answers_and_their_ends(name):
    before, middle, end = AROUND[name]
    talk = TALK[1:5]
    assert said(name, talk) == f"{before}Hi there{middle}{before}I am an assistant{end}"
    assert said(name, talk, turns="last") == f"{before}I am an assistant{end}"
    silent = [talk[0], talk[1] | {"train": False}, *talk[2:]]
    assert said(name, silent) == f"{before}I am an assistant{end}"
    assert said(name, silent, turns="all") == said(name, talk)
    light = [*talk[:3], talk[3] | {"weight": 0}]
    assert said(name, light) == f"{before}Hi there{middle}"
    found = render_chat(tokenizer_of(name), talk)
    assert {place for place, counts in zip(found.speakers, found.mask, strict=True) if counts} == {1, 3}


# ChatGLM3's last answer ends otherwise than the others, and Phi-3 closes the conversation with EOS.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("chatglm3", "phi-3")])
def test_answers_are_found_where_no_blocks_mark_them(name):
    """The template without its marks, as others publish it: the same mask."""
    tokenizer, talk = tokenizer_of(name), TALK[1:5]
    bare = re.sub(r"{%(-?) *generation *(-?)%}", r"{%\1 if true \2%}", chat_templates.source(name))
    bare = re.sub(r"{%(-?) *endgeneration *(-?)%}", r"{%\1 endif \2%}", bare)
    assert "generation %" not in bare.replace("add_generation", "")
    assert render_chat(tokenizer, talk, template=bare).mask is None
    marked = render_chat(tokenizer, talk)
    found = render_chat(tokenizer, talk, template=bare, infer_mask=True)
    assert (found.text, found.mask, found.speakers) == (marked.text, marked.mask, marked.speakers)
    last = render_chat(tokenizer, talk, template=bare, infer_mask=True, turns="last")
    assert last.mask == render_chat(tokenizer, talk, turns="last").mask


def test_answers_that_are_written_otherwise_later_on_are_not_guessed():
    """As in templates that drop what a model thought in earlier turns."""
    forgetful = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content[1:] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(UsageError, match="message 1 cannot be found"):
        render_chat(tokenizer_of("chatml"), TALK[1:5], template=forgetful, infer_mask=True)


@pytest.mark.parametrize("name", [name for name, kind in chat_templates.TEMPLATES.items() if kind.tools])
def test_the_mask_covers_calls(name):
    spoken = said(name, TOOL_TALK, tools=[WEATHER])
    assert "get_weather" in spoken
    assert "Paris" in spoken
    assert "It is sunny." in spoken
    assert not any(foreign in spoken for foreign in ("Weather?", "city of", "tool_response", "ipython", "call_id"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", ["Hi there", "  two spaces", "\n\nlines", "!", ""])
def test_a_prompt_begins_what_it_is_answered_with(name, first):
    tokenizer, asked = tokenizer_of(name), [*TALK[:4]]
    prompt = render_chat(tokenizer, asked, add_generation_prompt=True)
    whole = render_chat(tokenizer, [*asked, {"role": "assistant", "content": first}])
    assert whole.ids[: len(prompt.ids)] == prompt.ids
    assert not any(whole.mask[len(prompt.ids) - 1 : len(prompt.ids)])
    assert tokenizer.decode(whole.ids) == whole.text
    if tokenizer.bos_id is not None and name != "llama-2":  # which has one for each pair of turns
        assert whole.ids.count(tokenizer.bos_id) == 1


@pytest.mark.parametrize("name", ["alpaca", "vicuna", "llama-2", "mistral", "gemma"])
def test_roles_must_alternate_where_the_family_says_so(name):
    for roles in (["user", "user"], ["assistant"], ["user", "assistant", "assistant"], ["user", "system"]):
        with pytest.raises(UsageError, match="roles must alternate"):
            rendered(name, [{"role": role, "content": "a"} for role in roles])


@pytest.mark.parametrize("name", ["chatglm3", "glm-4", "phi-3"])
def test_unknown_roles_are_refused(name):
    with pytest.raises(UsageError, match="knows the roles"):
        rendered(name, [{"role": "function", "content": "a"}])


@pytest.mark.parametrize("name", [name for name, kind in chat_templates.TEMPLATES.items() if not kind.tools])
def test_tools_are_not_dropped_silently(name):
    if name != "turns":
        with pytest.raises(UsageError, match="no tools"):
            rendered(name, ask("Hello"), tools=[WEATHER])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "turns"])
def test_a_content_may_be_a_list_of_parts(name):
    parts = [{"type": "text", "text": "He"}, {"type": "text", "text": "llo"}]
    assert rendered(name, [{"role": "user", "content": parts}]) == rendered(name, ask("Hello"))
    with pytest.raises(UsageError, match="text parts"):
        rendered(name, [{"role": "user", "content": [{"type": "image", "url": "x"}]}])
    with pytest.raises(UsageError, match="text or a list"):
        rendered(name, [{"role": "user", "content": 3}])


def test_arguments_may_be_json_text():
    """OpenAI's API gives them so."""
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    for name in ("qwen", "llama-3.1", "glm-4"):
        asked = ask("Weather?")
        theirs = rendered(name, [*asked, {"role": "assistant", "content": None, "tool_calls": [call]}])
        assert theirs == rendered(name, [*asked, {"role": "assistant", "tool_calls": [CALL]}])


@pytest.mark.parametrize("name", NAMES)
def test_every_control_token_is_known(name):
    """What is written as a control token is one in the tokenizer; without it the tokenizer is refused by name."""
    tokenizer = tokenizer_of(name)
    found = render_chat(tokenizer, TALK[1:], template=name, add_generation_prompt=True)
    assert found.ids == render_chat(tokenizer, TALK[1:], add_generation_prompt=True).ids
    ids = {tokenizer.special_tokens[token] for token in chat_templates.TEMPLATES[name].controls}
    used = set(found.ids) | (
        set(render_chat(tokenizer, TOOL_TALK, tools=[WEATHER]).ids) if chat_templates.TEMPLATES[name].tools else set()
    )
    assert ids - used <= {
        tokenizer.vocab.get(t) for t in ("<|eom_id|>", "<|python_tag|>", "<|system|>", "<|observation|>")
    }
    bare = train_byte_bpe(["Hello there"], 260)
    missing = chat_templates.missing(name, bare)
    kind = chat_templates.TEMPLATES[name]
    assert missing == [*kind.controls, *["BOS"] * kind.bos, *["EOS"] * kind.eos]
    if missing:
        with pytest.raises(UsageError, match="lacks what") as caught:
            render_chat(bare, TALK, template=name)
        assert all(token in str(caught.value) for token in missing)


def test_an_unknown_name():
    with pytest.raises(UsageError, match="Did you mean `llama-3`"):
        render_chat(tokenizer_of("chatml"), TALK, template="lama-3")


def test_names_of_templates():
    assert chat_templates.name_of(chat_templates.source("gemma")) == "gemma"
    assert chat_templates.name_of("{{ messages }}") is None
    assert chat_templates.is_ours(chat_templates.source("mistral"))
    assert not chat_templates.is_ours(chat_templates.source("mistral") + " ")


def test_spelled_control_tokens_of_a_name_stay_text():
    names = SpecialNames(bos="<s>", eos="</s>")
    tokenizer = train_byte_bpe(["Hello there"], 300, ["<s>", "</s>"], names=names)
    found = render_chat(tokenizer, ask("a</s><s>b", "c"), template="llama-2")
    assert found.ids.count(tokenizer.eos_id) == 1
    assert found.ids.count(tokenizer.bos_id) == 1
    assert found.text == "<s>[INST] a</s><s>b [/INST] c </s>"
