"""Reading tokenizer.json: every part is recognised, or refused by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.base.errors import CheckpointError
from groundup.base.files import read_json
from groundup.tokenizers.added_tokens import AddedToken
from groundup.tokenizers.byte_bpe import ByteBPE, Merge
from groundup.tokenizers.characters import Characters
from groundup.tokenizers.files import ANY_CHARACTER
from groundup.tokenizers.normalizers import FORMS
from groundup.tokenizers.pretokenize import PATTERNS
from groundup.tokenizers.tokenizer import SpecialNames, Tokenizer

Json = dict[str, Any]


class Part:
    """An object inside a JSON file that knows where it stands, for error messages."""

    def __init__(self, value: Any, where: str):
        if not isinstance(value, dict):
            raise CheckpointError(f"{where}: an object is expected, found {type(value).__name__}")
        self.value: Json = value
        self.where = where
        self.type = value.get("type")

    def get(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The value at `key`, which must be of `kind`; `default` where it is absent or null."""
        found = self.value.get(key)
        if found is None:
            return default
        if not isinstance(found, kind) or (isinstance(found, bool) and kind is int):
            expected = kind.__name__ if isinstance(kind, type) else " or ".join(k.__name__ for k in kind)
            raise CheckpointError(f"{self.where}.{key}: {expected} is expected, found {type(found).__name__}")
        return found

    def part(self, key: str) -> "Part | None":
        """The object at `key`, or None."""
        found = self.value.get(key)
        return None if found is None else Part(found, f"{self.where}.{key}")

    def only(self, **allowed: Any) -> "Part":
        """Refuse a setting that is not known, or that has another value than the ones understood here (a tuple)."""
        for key, found in self.value.items():
            if key == "type":
                continue
            if key not in allowed:
                raise self.unsupported(f"the setting `{key}`")
            if allowed[key] is not Any and not any(found is value or found == value for value in allowed[key]):
                raise self.unsupported(f"`{key}` = {found!r:.80}")
        return self

    def unsupported(self, what: str) -> CheckpointError:
        """An error that names a part which is not understood here."""
        name = f" of {self.type}" if self.type else ""
        return CheckpointError(f"{self.where}: {what}{name} is not supported, and ignoring it would change the ids")


def read_tokenizer_json(
    path: str | Path, names: SpecialNames | None = None, chat_template: str | None = None
) -> Tokenizer:
    """The tokenizer in a tokenizer.json.

    Raises:
        CheckpointError: damaged, inconsistent, or with a part that is not understood here; the message names it.
    """
    root = Part(read_json(path), str(path))
    root.only(
        version=Any, truncation=Any, padding=Any, added_tokens=Any, normalizer=Any, pre_tokenizer=Any,
        post_processor=Any, decoder=Any, model=Any,
    )  # fmt: skip
    model = root.part("model")
    if model is None:
        raise CheckpointError(f"{path} has no `model`: it is not a tokenizer.json")
    added = _added_tokens(root)
    post_processor, bos, eos = _post_processor(root)
    names = names or SpecialNames(bos=bos, eos=eos or _first_known(added, "<|endoftext|>"))
    rest: Json = {"names": names, "chat_template": chat_template, "post_processor": post_processor}
    # Files from before the `type` key hold BPE, told by its merges.
    kind = model.type or ("BPE" if "merges" in model.value else None)
    try:
        if kind == "BPE":
            return _byte_bpe(root, model, added, rest)
        if kind == "WordLevel":
            return _characters(root, model, added, rest)
    except CheckpointError as error:
        raise error if str(path) in str(error) else CheckpointError(f"{path}: {error}") from None
    raise CheckpointError(f"{path}: the model {kind!r} is not supported; BPE over bytes and single characters are")


def _first_known(added: list[AddedToken], content: str) -> str | None:
    return next((token.content for token in added if token.content == content), None)


def _added_tokens(root: Part) -> list[AddedToken]:
    found = []
    for place, value in enumerate(root.get("added_tokens", list, [])):
        part = Part(value, f"{root.where}.added_tokens[{place}]")
        never = (False, None)
        part.only(id=Any, content=Any, special=Any, normalized=Any, single_word=never, lstrip=never, rstrip=never)
        content, number = part.get("content", str, ""), part.get("id", int, -1)
        if not content:
            raise CheckpointError(f"{part.where}: the token has no content")
        special = part.get("special", bool, False)
        found.append(AddedToken(content, number, special, part.get("normalized", bool, not special)))
    if len({token.content for token in found}) != len(found):
        raise CheckpointError(f"{root.where}.added_tokens: a token is listed twice")
    return found


def _vocab(model: Part) -> dict[str, int]:
    vocab = model.get("vocab", dict)
    if vocab is None:
        raise CheckpointError(f"{model.where}: there is no `vocab`")
    return vocab


def _characters(root: Part, model: Part, added: list[AddedToken], rest: Json) -> Characters:
    model.only(vocab=Any, unk_token=Any)
    if normalizer := root.part("normalizer"):
        raise normalizer.unsupported(f"the normalizer {normalizer.type}")
    split = root.part("pre_tokenizer")
    if split is None or split.type != "Split" or _pattern(split) not in (ANY_CHARACTER, ""):
        raise CheckpointError(f"{root.where}: a WordLevel model is supported only where each word is one character")
    decoder = root.part("decoder")
    if decoder is None or decoder.type != "Fuse":
        raise CheckpointError(f"{root.where}.decoder: `Fuse` is expected for characters")
    vocab, unk, names = _vocab(model), model.get("unk_token", str), rest["names"]
    if unk in vocab and names.unk is None:
        rest = rest | {"names": SpecialNames(names.bos, names.eos, names.pad, unk)}
    special = {token.content for token in added}
    if long := next((token for token in vocab if len(token) != 1 and token not in special), None):
        raise CheckpointError(f"{root.where}: the token {long!r} is not a single character")
    return Characters(vocab, added, **rest)


def _byte_bpe(root: Part, model: Part, added: list[AddedToken], rest: Json) -> ByteBPE:
    no = (None, False, "")
    model.only(
        vocab=Any, merges=Any, ignore_merges=Any, fuse_unk=Any, unk_token=Any, byte_fallback=(None, False),
        dropout=(None, 0.0), continuing_subword_prefix=no, end_of_word_suffix=no,
    )  # fmt: skip
    decoder = root.part("decoder")
    if decoder is None or decoder.type != "ByteLevel":
        raise CheckpointError(
            f"{root.where}.decoder: only ByteLevel BPE is supported, found {decoder.type if decoder else None}"
        )
    return ByteBPE(
        _vocab(model),
        _merges(model),
        added,
        pattern=_byte_level_pattern(root),
        normal_form=_normal_form(root.part("normalizer")),
        ignore_merges=model.get("ignore_merges", bool, False),
        **rest,
    )


def _merges(model: Part) -> list[Merge]:
    """Both spellings: "a b" and ["a", "b"]."""
    merges = []
    for place, value in enumerate(model.get("merges", list, [])):
        pair = value.split(" ") if isinstance(value, str) else value
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            raise CheckpointError(f"{model.where}.merges[{place}]: two symbols are expected, found {value!r:.80}")
        merges.append((pair[0], pair[1]))
    return merges


def _normal_form(part: Part | None) -> str | None:
    while part is not None and part.type == "Sequence":
        inner = part.get("normalizers", list, [])
        if len(inner) > 1:
            raise part.unsupported("more than one normalizer")
        part = Part(inner[0], f"{part.where}.normalizers[0]") if inner else None
    if part is None:
        return None
    if part.type not in FORMS:
        raise part.unsupported(f"the normalizer {part.type}")
    return part.type


def _byte_level_pattern(root: Part) -> str:
    """The pattern that ByteLevel, or a Split and ByteLevel, cut by."""
    part = root.part("pre_tokenizer")
    if part is None:
        raise CheckpointError(f"{root.where}.pre_tokenizer: ByteLevel is expected, found none")
    if part.type == "Sequence":
        inner = [
            Part(value, f"{part.where}.pretokenizers[{i}]")
            for i, value in enumerate(part.get("pretokenizers", list, []))
        ]
    else:
        inner = [part]
    last = inner[-1] if inner else part
    if last.type != "ByteLevel":
        raise last.unsupported(f"the pre-tokenizer {last.type}")
    last.only(add_prefix_space=(False,), trim_offsets=Any, use_regex=Any)
    if "add_prefix_space" not in last.value:  # the library's default is to add one
        raise last.unsupported("`add_prefix_space` = True")
    uses_regex = last.get("use_regex", bool, True)
    if len(inner) == 1 and uses_regex:
        return PATTERNS["gpt2"]
    if len(inner) == 2 and not uses_regex and inner[0].type == "Split":
        return _pattern(inner[0])
    raise part.unsupported("this combination " + str([item.type for item in inner]))


def _pattern(split: Part) -> str:
    split.only(pattern=Any, behavior=("Isolated",), invert=(False,))
    pattern = split.part("pattern")
    if pattern is None or not isinstance(pattern.value.get("Regex", pattern.value.get("String")), str):
        raise CheckpointError(f"{split.where}.pattern: a Regex or String is expected")
    if "Regex" in pattern.value:
        return pattern.value["Regex"]
    if pattern.value["String"]:
        raise split.unsupported("splitting at a fixed string")
    return ""


def _post_processor(root: Part) -> tuple[Json | None, str | None, str | None]:
    """The part as it stands (it changes no ids of a plain text), and the BOS and EOS that it puts around one."""
    part = root.part("post_processor")
    if part is None:
        return None, None, None
    items = part.get("processors", list, []) if part.type == "Sequence" else [part.value]
    bos = eos = None
    for value in items:
        item = Part(value, part.where)
        if item.type == "TemplateProcessing":
            bos, eos = _around(item)
        elif item.type != "ByteLevel":
            raise item.unsupported(f"the post-processor {item.type}")
    return part.value, bos, eos


def _around(template: Part) -> tuple[str | None, str | None]:
    pieces = template.get("single", list, [])
    place = next((i for i, p in enumerate(pieces) if isinstance(p, Mapping) and "Sequence" in p), len(pieces))

    def token(side: list[Any]) -> str | None:
        special = side[0].get("SpecialToken") if side and isinstance(side[0], Mapping) else None
        return special.get("id") if isinstance(special, Mapping) else None

    return token(pieces[:place]), token(pieces[place + 1 :])
