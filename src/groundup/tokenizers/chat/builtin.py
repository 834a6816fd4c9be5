"""The built-in chat templates: families' prompt forms, each with the control tokens that it needs.

    builtin.source("llama-3")                            # Jinja text, as chat_template.jinja holds it
    builtin.missing("llama-3", tokenizer)                # control tokens that the tokenizer lacks

The texts lie in `templates/`; a name that begins with `_` is a part that several share. Every template marks the
assistant's words and end token with `{% generation %}`.
"""

import hashlib
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from groundup.base.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer

# Characters; the longest published ones have some 20,000.
MAX_TEMPLATE = 2**20
FOLDER = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class ChatTemplate:
    """A built-in template.

    Attributes:
        about: whose form it is.
        parts: files in `templates/`, joined in this order.
        controls: spellings that must be special tokens.
        bos, eos: whether the form begins with BOS, or ends an answer with EOS.
        tools: whether it can offer tools and write calls.
    """

    about: str
    parts: tuple[str, ...]
    controls: tuple[str, ...] = ()
    bos: bool = False
    eos: bool = False
    tools: bool = False


IM = ("<|im_start|>", "<|im_end|>")
HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
MISTRAL = ("[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]",
           "[/TOOL_RESULTS]")  # fmt: skip

TEMPLATES: dict[str, ChatTemplate] = {
    "turns": ChatTemplate("User: and Assistant: in plain words, for models that only read text", ("turns",)),
    "chatml": ChatTemplate("ChatML (OpenAI), with tools as Hermes has them", ("_words", "chatml"), IM, tools=True),
    "qwen": ChatTemplate("Qwen 2.5: ChatML with its own system text", ("_words", "qwen", "chatml"), IM, tools=True),
    "alpaca": ChatTemplate("Alpaca, with or without input", ("_words", "_no_tools", "alpaca"), eos=True),
    "alpaca-short": ChatTemplate("Alpaca as in Raschka's book", ("_words", "_no_tools", "_short", "alpaca"), eos=True),
    "vicuna": ChatTemplate("Vicuna 1.1 and 1.5", ("_words", "_no_tools", "vicuna"), bos=True, eos=True),
    "llama-2": ChatTemplate("Llama 2-Chat", ("_words", "_no_tools", "llama-2"), bos=True, eos=True),
    "llama-3": ChatTemplate("Llama 3 Instruct", ("_words", "_no_tools", "llama-3"), HEADERS, bos=True),
    "llama-3.1": ChatTemplate("Llama 3.1 Instruct, with tools", ("_words", "llama-3.1"),
                              (*HEADERS, "<|eom_id|>", "<|python_tag|>"), bos=True, tools=True),
    "mistral": ChatTemplate("Mistral Instruct v0.3, with tools", ("_words", "mistral"), MISTRAL, True, True, True),
    "chatglm3": ChatTemplate("ChatGLM3, with tools in the system turn", ("_words", "chatglm3"),
                             ("[gMASK]", "sop", *ROLES, "<|observation|>"), eos=True, tools=True),
    "glm-4": ChatTemplate("GLM-4, with tools in the system turn", ("_words", "glm-4"),
                          ("[gMASK]", "<sop>", *ROLES, "<|observation|>"), tools=True),
    "phi-3": ChatTemplate("Phi-3", ("_words", "_no_tools", "phi-3"), (*ROLES, "<|end|>"), eos=True),
    "gemma": ChatTemplate("Gemma", ("_words", "_no_tools", "gemma"), ("<start_of_turn>", "<end_of_turn>"), bos=True),
}  # fmt: skip

# Earlier texts of ours, which folders written by earlier versions hold (SHA-256).
EARLIER = frozenset({"c1bd8f2b834829ecab615f458bd698d0e69855b2aa1216e32e2fc8b9c600c01d"})


@cache
def source(name: str) -> str:
    """The Jinja text of a built-in template.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in TEMPLATES:
        raise UsageError(
            f"there is no chat template `{name}`.{did_you_mean(name, TEMPLATES)} Built in: {', '.join(TEMPLATES)}"
        )
    parts = (FOLDER / f"{part}.jinja" for part in TEMPLATES[name].parts)
    return "".join(part.read_text(encoding="utf-8") for part in parts)


@cache
def _ours() -> frozenset[str]:
    return frozenset(source(name) for name in TEMPLATES)


@lru_cache(maxsize=16)
def _is_earlier(template: str) -> bool:
    return hashlib.sha256(template.encode("utf-8", errors="replace")).hexdigest() in EARLIER


def is_ours(template: str) -> bool:
    """Whether a text is byte for byte a built-in template."""
    return template in _ours() or (len(template) < 2**12 and _is_earlier(template))


def name_of(template: str | None) -> str | None:
    """The name of the built-in template with this text, or None."""
    return next((name for name in TEMPLATES if source(name) == template), None)


def missing(name: str, tokenizer: "Tokenizer") -> list[str]:
    """What a tokenizer lacks for a built-in template: spellings that are no special tokens, and "BOS" or "EOS".

    With `turns`, `alpaca`, `vicuna` and `llama-2` the roles are plain words, so little can be missing.
    """
    source(name)
    wanted = TEMPLATES[name]
    absent = [token for token in wanted.controls if token not in tokenizer.special_tokens]
    absent += ["BOS"] * (wanted.bos and tokenizer.bos_id is None)
    return absent + ["EOS"] * (wanted.eos and tokenizer.eos_id is None)


def check(name: str, tokenizer: "Tokenizer") -> None:
    """Raise `UsageError` that names what the tokenizer lacks for a built-in template."""
    absent = missing(name, tokenizer)
    if absent:
        raise UsageError(
            f"the tokenizer lacks what the chat template `{name}` needs: {', '.join(absent)}; add them as special "
            f"tokens, train with them, or choose a template of plain words such as `turns`"
        )
