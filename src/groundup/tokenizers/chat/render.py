"""Messages and tools straight to token ids, with a mask of what the assistant says.

There is no detour over one text that is then cut up: control tokens come from the template alone. What a user writes
is tokenized as plain text even where it spells <|im_end|>, so nobody can end their turn and speak as someone else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from groundup.base.errors import UsageError
from groundup.tokenizers.chat import builtin as chat_templates
from groundup.tokenizers.chat.guarding import Guards, Spellings, spellings, unused_signs
from groundup.tokenizers.chat.masks import NOBODY, Turns, block_speakers, counted_turns, infer_blocks
from groundup.tokenizers.chat.messages import (
    ASSISTANT,
    Message,
    cut_at_end,
    mark_end,
    prepare,
    read_documents,
    read_tools,
)
from groundup.tokenizers.chat.pieces import one_bos, to_ids
from groundup.tokenizers.chat.rendering import render_safely
from groundup.tokenizers.chat.template import Limits, Rendered, Signs
from groundup.tokenizers.tokenizer import Tokenizer

# For our own models: ChatML (OpenAI, 2023), one line end after each turn; and turns in plain words, for models that
# only ever read text: the built-in stories hold conversations of that form.
CHATML = chat_templates.source("chatml")
TURNS = chat_templates.source("turns")


@dataclass(frozen=True)
class ChatIds:
    """A conversation as tokens.

    Attributes:
        ids: the tokens.
        mask: for each token, 1 where the assistant says it and the turn counts, else 0; None where the template marks
            no `{% generation %}` blocks.
        text: the rendered text, for people.
        speakers: for each token, the place of the assistant's message that says it, or -1; None as for `mask`.
    """

    ids: list[int]
    mask: list[int] | None
    text: str
    speakers: list[int] | None = None


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    add_generation_prompt: bool = False,
    *,
    tools: Sequence[Mapping[str, Any]] | str | None = None,
    documents: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    turns: Turns = "marked",
    infer_mask: bool = False,
    continue_final_message: bool | str = False,
    limits: Limits | None = None,
    **variables: Any,
) -> ChatIds:
    """Messages as ids, by a chat template.

    There is exactly one BOS in front where the tokenizer has one. Text is tokenized apart inside and outside of
    `{% generation %}` blocks, so the ids of a prompt are the beginning of the ids of the prompt with its answer.

    Args:
        tokenizer: its templates are used, and its special tokens' names are given to the template.
        messages: each with `role` and `content` (and what else the template reads). Keys that are None count as absent.
        add_generation_prompt: end where the assistant is to begin.
        tools: JSON schemas of functions, or a JSON text of them.
        documents: for templates that quote sources, each with `title` and `text`.
        template: Jinja text, or the name of one of the tokenizer's or of the built-in templates; without it the
            tokenizer's own: `tool_use` where tools are given and it has such a one, else its default.
        turns: which of the assistant's turns the mask covers: "all", the "last", or ("marked") all but those whose
            message says `"train": false` or `"weight": 0`.
        infer_mask: find the assistant's words also where the template does not mark them, by rendering the conversation
            turn by turn.
        continue_final_message: end inside the last message, to be gone on with; or the name of its field that is.
        limits: of the rendering.
        variables: more for the template.

    Raises:
        UsageError: there is no template, it is wrong, passes a limit or refuses the messages; there is no message, or
            one without a known role or without content (`check_messages`); tools are no JSON; a built-in template's
            control tokens are not in the tokenizer.
    """
    source = choose_template(tokenizer, template, tools)
    conversation = prepare(messages, source)
    values = {"messages": conversation, "tools": read_tools(tools), "documents": read_documents(documents), **variables}
    mark, guard, stop = _signs(3, source, values)
    field = ""
    if continue_final_message:
        if add_generation_prompt:
            raise UsageError("continue_final_message and add_generation_prompt exclude each other")
        field = mark_end(values["messages"], continue_final_message, stop)
    controls = spellings(tuple(tokenizer.special_tokens))
    written = spellings(_written_tokens(tokenizer, source))
    given = values | {"add_generation_prompt": add_generation_prompt}
    signs = Signs(mark, guard)
    job = _Rendering(source, _special_names(tokenizer), given, controls, written, signs, limits)
    rendered = job.run()
    if rendered.blocks is None and infer_mask:
        rendered = Rendered(rendered.text, infer_blocks(rendered.text, conversation, controls, job.beginning))
    if continue_final_message:
        rendered = cut_at_end(rendered, stop, field)
    speakers = block_speakers(rendered, conversation)
    ids, said = to_ids(tokenizer, rendered, speakers, controls, written, guard)
    ids, said = one_bos(tokenizer.bos_id, ids, said)
    text = rendered.text.replace(guard, "")
    if rendered.blocks is None:
        return ChatIds(ids, None, text)
    counted = counted_turns(conversation, speakers, turns)
    return ChatIds(ids, [int(place in counted) for place in said], text, [max(place, NOBODY) for place in said])


def choose_template(tokenizer: Tokenizer, template: str | None = None, tools: Any = None) -> str:
    """The Jinja text that `render_chat` uses.

    Raises:
        UsageError: no template, or none of this name; a built-in one whose control tokens are not in the tokenizer.
    """
    named = tokenizer.chat_templates
    if template is None:
        if tools is not None and "tool_use" in named:
            return named["tool_use"]
        if tokenizer.chat_template is not None:
            return tokenizer.chat_template
        others = f", or one of its own by name: {', '.join(named)}" if named else ""
        raise UsageError(
            f"this tokenizer has no chat template: set `tokenizer.chat_template`, or choose a built-in one by name "
            f"({', '.join(chat_templates.TEMPLATES)}){others}"
        )
    if template in named:
        return named[template]
    if "{" in template:
        return template
    source = chat_templates.source(template)
    chat_templates.check(template, tokenizer)
    return source


def _signs(count: int, *values: Any) -> list[str]:
    try:
        return unused_signs(count, *values)
    except RecursionError:
        raise UsageError("the messages or tools are nested too deeply") from None


def _written_tokens(tokenizer: Tokenizer, source: str) -> tuple[str, ...]:
    """Added tokens that are not special but that the template writes, such as Qwen's <tool_call>.

    SentencePiece's user-defined symbols are such tokens too, some models' turn signs among them.
    """
    plain = [token.content for token in tokenizer.added.tokens if not token.special]
    found = dict.fromkeys([*plain, *getattr(tokenizer, "symbols", ())])
    return tuple(token for token in found if len(token) > 1 and token in source and not token.isspace())


def _special_names(tokenizer: Tokenizer) -> dict[str, str]:
    """What templates call the special tokens: bos_token and so on; those that there are."""
    names = {f"{part}_token": getattr(tokenizer.names, part) for part in ("bos", "eos", "pad", "unk")}
    return {key: token for key, token in names.items() if token is not None}


@dataclass(frozen=True)
class _Rendering:
    """One conversation on its way through a template, with guards in the control tokens that its values spell.

    Guards at the edges of texts are seldom needed, and a template that looks at a text's first character sees them. So
    they are left out, unless a control token arises where a text's edge meets what stands beside it.
    """

    source: str
    names: dict[str, str]
    values: dict[str, Any]
    controls: Spellings
    written: Spellings
    signs: Signs
    limits: Limits | None

    def run(self) -> Rendered:
        """The rendered text with its guards."""
        rendered, at_edges = self.once(edges=False)
        if not at_edges:
            return rendered
        other, _ = self.once(edges=True)
        every = self.every()
        return rendered if every.found(rendered.text) == every.found(other.text) else other

    def beginning(self, count: int, prompt: bool) -> str:
        """The text of the first messages, with the generation prompt or without."""
        values = self.values | {"messages": self.values["messages"][:count], "add_generation_prompt": prompt}
        return replace(self, values=values).run().text

    def once(self, edges: bool) -> tuple[Rendered, bool]:
        """The rendered text, and whether a text's edge holds a part of a control token."""
        plain = Guards(self.controls, self.signs.guard, edges)
        strict = Guards(self.every(), self.signs.guard, edges) if self.written.tokens else plain
        guarded = self.names | {key: strict.protect(value) for key, value in self.values.items() if key != "messages"}
        # An assistant may write what is not special.
        messages = self.values["messages"]
        guarded["messages"] = [(plain if m["role"] in ASSISTANT else strict).protect(m) for m in messages]
        used = plain.used or strict.used
        signs = Signs(self.signs.mark, self.signs.guard, self.every().tokens) if used else Signs(self.signs.mark, "")
        return render_safely(self.source, guarded, signs, self.limits), plain.at_edges or strict.at_edges

    def every(self) -> Spellings:
        """The control tokens, and what the template writes like one."""
        return spellings((*self.controls.tokens, *self.written.tokens)) if self.written.tokens else self.controls
