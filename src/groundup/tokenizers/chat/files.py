"""Chat templates in a model folder: where they lie, and writing them.

From the newest place to the oldest: chat_template.jinja with additional_chat_templates/NAME.jinja; the key
`chat_template` of tokenizer_config.json, a text or a list of named texts; chat_template.json, which processors of
multimodal models once wrote. A newer place wins, name by name.
"""

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.errors import CheckpointError
from groundup.base.files import read_json, safe_join, write_atomic
from groundup.base.shards import hub_blobs
from groundup.tokenizers.chat.builtin import MAX_TEMPLATE

if TYPE_CHECKING:
    from groundup.tokenizers.tokenizer import Tokenizer

CONFIG = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
MORE = "additional_chat_templates"
LEGACY = "chat_template.json"
DEFAULT = "default"
# What is downloaded for a hub name, beside the tokenizer's files.
FILES = (TEMPLATE, f"{MORE}/*.jinja", LEGACY)

MAX_BYTES = 4 * MAX_TEMPLATE
MAX_NAMED = 64
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def with_templates(tokenizer: "Tokenizer", folder: str | Path) -> "Tokenizer":
    """The tokenizer with the chat templates of its folder."""
    named = read_templates(folder)
    tokenizer.chat_template = named.pop(DEFAULT, None)
    tokenizer.chat_templates = named
    return tokenizer


def read_templates(folder: str | Path) -> dict[str, str]:
    """The templates of a folder by name; the one that is used unless said otherwise is called "default".

    Raises:
        CheckpointError: a file that is too large, no UTF-8, or not of the expected form.
    """
    folder = Path(folder)
    found: dict[str, str] = {}
    for path in (folder / LEGACY, folder / CONFIG):
        if path.is_file():
            found |= _of_key(path)
    if (folder / TEMPLATE).is_file():
        found[DEFAULT] = _read(folder, TEMPLATE)
    if (folder / MORE).is_dir():
        paths = list(itertools.islice((folder / MORE).glob("*.jinja"), MAX_NAMED + 1))
        _check_count(len(paths), folder / MORE)
        for path in sorted(paths):
            found[path.name.removesuffix(".jinja")] = _read(folder, f"{MORE}/{path.name}")
    return found


def write_templates(tokenizer: "Tokenizer", folder: str | Path) -> None:
    """Write the tokenizer's templates in the newest form; those of an earlier tokenizer in the folder are removed.

    Raises:
        CheckpointError: a template's name that cannot be a file's.
    """
    folder = Path(folder)
    wrong = next((name for name in tokenizer.chat_templates if not _NAME.fullmatch(name)), None)
    if wrong is not None:
        raise CheckpointError(f"a chat template cannot be called {wrong!r:.80}: letters, digits, `_`, `-`, `.`")
    if tokenizer.chat_template is None:
        (folder / TEMPLATE).unlink(missing_ok=True)
    else:
        write_atomic(folder / TEMPLATE, tokenizer.chat_template)
    for path in (folder / MORE).glob("*.jinja"):
        if path.name.removesuffix(".jinja") not in tokenizer.chat_templates:
            path.unlink()
    for name, template in tokenizer.chat_templates.items():
        write_atomic(folder / MORE / f"{name}.jinja", template)


def _of_key(path: Path) -> dict[str, str]:
    """What the key `chat_template` of a JSON file holds: one template, or several by name."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold an object, found {type(value).__name__}")
    found = value.get("chat_template")
    if found is None:
        return {}
    if isinstance(found, str):
        return {DEFAULT: _bounded(found, path)}
    if isinstance(found, dict):
        named = found
    elif isinstance(found, list) and all(isinstance(item, dict) for item in found):
        named = {item.get("name"): item.get("template") for item in found}
    else:
        raise CheckpointError(
            f'{path}: chat_template must be text or a list of {{"name", "template"}}, found {type(found).__name__}'
        )
    if not all(isinstance(text, str) for pair in named.items() for text in pair):
        raise CheckpointError(f"{path}: each template in chat_template needs a name and a text")
    _check_count(len(named), path)
    return {name: _bounded(template, path) for name, template in named.items()}


def _bounded(template: str, where: Any) -> str:
    if len(template) > MAX_TEMPLATE:
        raise CheckpointError(f"{where}: a chat template of {len(template):,} characters; at most {MAX_TEMPLATE:,}")
    return template


def _check_count(count: int, where: Any) -> None:
    if count > MAX_NAMED:
        raise CheckpointError(f"{where} holds more than {MAX_NAMED} chat templates")


def _read(folder: Path, name: str) -> str:
    return read_file(safe_join(folder, name, also=hub_blobs(folder)))


def read_file(path: str | Path) -> str:
    """The template in a file of Jinja text, bounded; line ends become newlines, as transformers reads these files."""
    with open(path, "rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise CheckpointError(f"{path} is larger than {MAX_BYTES:,} bytes, which is more than a chat template can need")
    try:
        text = raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: byte {error.start} is not UTF-8") from None
    return _bounded(text, path)
