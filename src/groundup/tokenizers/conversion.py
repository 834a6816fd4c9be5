"""A tokenizer in another project's files, where nothing is lost on the way.

Each form is written to a folder of its own first, read back, and held against the tokenizer: the same ids on probing
texts, the same vocabulary, special tokens, template. What a form has no place for is told by name, and only a caller
who accepts the loss gets the files.
"""

import contextlib
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from groundup.base.errors import CheckpointError, GroundupError, UsageError, did_you_mean
from groundup.base.files import write_atomic
from groundup.tokenizers.hub import load_tokenizer
from groundup.tokenizers.tokenizer import Tokenizer

PROBES = (
    "Hello, world! It's 12345 o'clock; don't ...",
    "  two  spaces\n\n\tand\r\n lines \n ",
    "naïve façade Straße ÄÖÜ",
    "中文没有空格。日本語のテキスト 한국어",
    "emoji 🙂👩\u200d👩\u200d👧 🇩🇪",
    "def f(x):\n    return x ** 2  # squared\n",
    "مرحبا हिन्दी ไทย",
    "e\u0301 \u00a0 \u200b \ufeff \x00\x1c\x7f \ufffd",
    "aaaaaaaaaaaaaaaa bbbb ababab",
    "\ufb01 \uff21 ½ ①",
)


@dataclass(frozen=True)
class Form:
    """A form of files.

    Attributes:
        kinds: the kinds of tokenizer that can have it; none for all.
        file: the name of the file that is read back.
        write: (tokenizer, folder) -> None.
        pattern: whether reading it back needs to be told the pattern.
    """

    kinds: tuple[str, ...]
    file: str
    write: Callable[[Tokenizer, Path], None]
    pattern: bool = False


def _module(name: str) -> Callable[..., None]:
    return importlib.import_module(f"groundup.tokenizers.formats.{name}").write


FORMS: dict[str, Form] = {
    "json": Form((), "tokenizer.json", lambda t, folder: t.save_pretrained(folder)),
    "tiktoken": Form(
        ("byte_bpe",), "ranks.tiktoken", lambda t, folder: _module("tiktoken_ranks")(t, folder / "ranks.tiktoken"), True
    ),
    "openai": Form(("byte_bpe",), "encoder.json", lambda t, folder: _module("openai_gpt2")(t, folder), True),
    "vocab": Form(
        ("byte_bpe",), "vocab.json",
        lambda t, folder: _module("openai_gpt2")(t, folder, ("vocab.json", "merges.txt")), True,
    ),
    "sentencepiece": Form(
        ("sentencepiece",), "tokenizer.model",
        lambda t, folder: _module("sentencepiece_model")(t, folder / "tokenizer.model"),
    ),
    "bert": Form(("pipeline",), "vocab.txt", lambda t, folder: _module("bert_vocab")(t, folder / "vocab.txt")),
    "rwkv": Form(
        ("trie",), "rwkv_vocab.txt", lambda t, folder: _module("rwkv_vocabulary")(t, folder / "rwkv_vocab.txt")
    ),
}  # fmt: skip


def convert(
    tokenizer: Tokenizer, form: str, folder: str | Path, *, lossy: bool = False, texts: Iterable[str] = PROBES
) -> list[str]:
    """Write the tokenizer's files in another form into `folder`; what got lost, by name.

    Args:
        tokenizer: what to write.
        form: a name in `FORMS`.
        folder: where the files go; other files there stay.
        lossy: write them even where something gets lost. Other ids are never accepted.
        texts: what the files are tried on.

    Raises:
        UsageError: no such form, a form that this kind cannot have, or a loss that is not accepted. Nothing is written.
        CheckpointError: the files would give other ids. Nothing is written.
    """
    if form not in FORMS:
        raise UsageError(f"`{form}` is no form of files.{did_you_mean(form, FORMS)} Known: {', '.join(FORMS)}")
    kinds = FORMS[form].kinds
    if kinds and tokenizer.kind not in kinds:
        able = [name for name, other in FORMS.items() if not other.kinds or tokenizer.kind in other.kinds]
        raise UsageError(
            f"a {tokenizer.algorithm} tokenizer cannot be written as `{form}`, which is for "
            f"{', '.join('BERT' if kind == 'pipeline' else kind for kind in kinds)}; "
            f"it can be written as: {', '.join(able)}"
        )
    with tempfile.TemporaryDirectory() as place:
        trial = Path(place)
        FORMS[form].write(tokenizer, trial)
        lost = compare_read_back(tokenizer, trial, FORMS[form], texts)
        if lost and not lossy:
            raise UsageError(
                f"`{form}` has no place for: {'; '.join(lost)}. Say that this may get lost (--lossy), or choose json"
            )
        for path in sorted(trial.iterdir()):
            write_atomic(Path(folder) / path.name, path.read_bytes())
    return lost


def compare_read_back(tokenizer: Tokenizer, folder: Path, form: Form, texts: Iterable[str]) -> list[str]:
    """What the files in `folder` do not say of the tokenizer.

    Raises:
        CheckpointError: they give other ids.
    """
    alone = folder / "alone"
    alone.mkdir()
    try:
        for path in folder.iterdir():
            if path.is_file():
                shutil.copy(path, alone / path.name)
        lost = []
        pattern = getattr(tokenizer, "pattern", None) if form.pattern else None
        if form.pattern:
            with contextlib.suppress(GroundupError):
                if getattr(load_tokenizer(alone / form.file), "pattern", None) == pattern:
                    pattern = None
            if pattern is not None:
                lost.append("how text is cut (give `pattern` when reading)")
        back = load_tokenizer(alone / form.file, pattern=pattern)
    finally:
        shutil.rmtree(alone)
    return lost + _differences(tokenizer, back, texts)


def _differences(tokenizer: Tokenizer, back: Tokenizer, texts: Iterable[str]) -> list[str]:
    if (form := getattr(tokenizer, "normal_form", None)) != getattr(back, "normal_form", None):
        raise CheckpointError(f"these files cannot say that text is brought to the normal form {form}: choose json")
    for text in texts:
        if _ids(tokenizer, text) != _ids(back, text):
            raise CheckpointError(f"these files would give other ids, for example for {text!r:.60}: choose json")
    lost = []
    control = set(tokenizer.special_tokens.items()) - set(back.special_tokens.items())
    if control:
        lost.append(f"the special tokens {', '.join(sorted(token for token, _ in control)[:6])}")
    plain = {token.content for token in tokenizer.added.tokens if not token.special} - set(back.vocab)
    if plain:
        lost.append(f"the added tokens {', '.join(sorted(plain)[:6])}")
    names = [f"{part}_id" for part in ("bos", "eos", "pad", "unk")]
    parts = [name[:3] for name in names if getattr(tokenizer, name) not in (None, getattr(back, name))]
    if parts:
        lost.append(f"which token is {', '.join(part.upper() for part in parts)}")
    if tokenizer.chat_template != back.chat_template:
        lost.append("the chat template")
    return lost


def _ids(tokenizer: Tokenizer, text: str) -> list[int] | None:
    try:
        return tokenizer.encode(text)
    except UsageError:  # a character that it does not know, here and there alike
        return None
