"""Tokenizers and conversations for tests of chat templates."""

from functools import cache

from groundup.tokenizers.chat import builtin as chat_templates
from groundup.tokenizers.tokenizer import SpecialNames
from groundup.tokenizers.training.byte_bpe import train_byte_bpe

PROSE = "You are a helpful assistant. Hello there, who are you? Another question: what is the weather in Paris? " * 8

# BOS and EOS of each family's own tokenizer.
NAMES = {
    "turns": (None, None),
    "chatml": (None, "<|im_end|>"),
    "qwen": (None, "<|im_end|>"),
    "alpaca": ("<s>", "</s>"),
    "alpaca-short": (None, "<|endoftext|>"),
    "vicuna": ("<s>", "</s>"),
    "llama-2": ("<s>", "</s>"),
    "llama-3": ("<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.1": ("<|begin_of_text|>", "<|eot_id|>"),
    "mistral": ("<s>", "</s>"),
    "chatglm3": (None, "</s>"),
    "glm-4": (None, "<|endoftext|>"),
    "phi-3": ("<s>", "<|endoftext|>"),
    "gemma": ("<bos>", "<eos>"),
}

TALK = [
    {"role": "system", "content": "You are a helpful assistant"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi there"},
    {"role": "user", "content": "Who are you"},
    {"role": "assistant", "content": "I am an assistant"},
    {"role": "user", "content": "Another question"},
]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}}
TOOL_TALK = [
    {"role": "user", "content": "Weather?"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call00001", "content": "sunny"},
    {"role": "assistant", "content": "It is sunny."},
]


@cache
def tokenizer_of(name: str):
    """A small byte-level tokenizer with the family's control tokens and its template."""
    bos, eos = NAMES[name]
    special = dict.fromkeys([*filter(None, (bos, eos)), *chat_templates.TEMPLATES[name].controls])
    names = SpecialNames(bos=bos, eos=eos)
    source = chat_templates.source(name)
    return train_byte_bpe([PROSE], 256 + len(special) + 60, list(special), names=names, chat_template=source)
