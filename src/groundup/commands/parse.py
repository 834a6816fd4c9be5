"""From flags and YAML to a command's Config."""

import argparse
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict, SettingsError

from groundup.base.config import explain, read_yaml
from groundup.base.errors import UsageError, did_you_mean
from groundup.commands.command import Command

C = TypeVar("C", bound=Command)


def parse(cls: type[C], verb: str, words: list[str]) -> C:
    """Build `cls` from `words`: defaults, then the YAML file (`--config F`, or a leading F.yaml), then the flags."""
    words, files = split_files(words)
    values: dict[str, Any] = {}
    for file in files:
        values = merge(values, read_yaml(file))
    values = merge(values, read_flags(cls, verb, words))
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        where = f"{verb} ({', '.join(files)})" if files else verb
        raise UsageError(f"{explain(error, cls, where)}\nSee `groundup {verb} --help`.") from None


def split_files(words: list[str]) -> tuple[list[str], list[str]]:
    """Take the settings files out of the words."""
    rest, files = [], []
    pending = iter(words)
    for word in pending:
        if word == "--config":
            files.append(next(pending, None) or _no_file())
        elif word.startswith("--config="):
            files.append(word.partition("=")[2] or _no_file())
        elif word.endswith((".yaml", ".yml")) and not rest:
            files.append(word)
        else:
            rest.append(word)
    return rest, files


def _no_file() -> str:
    raise UsageError("`--config` needs a YAML file of settings: --config FILE.yaml")


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, section by section; a section of another `kind` replaces the one below."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            value = merge(old, value)
        merged[key] = value
    return merged


def members(annotation: Any) -> dict[str, type[BaseModel]]:
    """The settings of each kind, of a section that is one of several; else none."""
    found: dict[str, type[BaseModel]] = {}
    for member in get_args(annotation):
        kind = getattr(member, "model_fields", {}).get("kind")
        if kind is not None:
            found[str(kind.default)] = member
        else:  # an optional section's kinds lie one level deeper
            found |= members(member)
    return found


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are ours: with the nearest known flag."""

    def __init__(self, *args: Any, command: type[Command] = Command, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.command = command
        fields = command.model_fields.items()
        self.text_lists = frozenset(name for name, field in fields if "list[str]" in str(field.annotation))
        self.texts: dict[str, list[str]] = {}

    def error(self, message: str) -> Any:
        raise UsageError(f"{message}\nSee `{self.prog} --help`.")

    def parse_words(self, args: list[str] | None = None, namespace: Any = None) -> Any:
        for action in self._actions:  # a positional may stand in the YAML file: pydantic says when it is missing
            if not action.option_strings and action.nargs is None:
                action.nargs = "?"
        self._tell_kinds()
        known, unknown = self.parse_known_args(args, namespace)
        unknown = self._place(known, unknown)
        if unknown:
            wrong = next((word for word in unknown if word.startswith("-")), unknown[0])
            self.error(self._misplaced(wrong.partition("=")[0]))
        for name in self.text_lists:  # kept from pydantic-settings, which would cut a text at its commas
            if getattr(known, name, None):
                self.texts[name] = getattr(known, name)
                setattr(known, name, None)
        return known

    def _place(self, known: Any, words: list[str]) -> list[str]:
        """Give words that stand behind options to the places that are still free; the words that none takes.

        argparse fills all places with the first words: of `encode tok --bos text` it would not take the text.
        """
        if "--" in words:  # what follows is no option, whatever it looks like
            end = words.index("--")
            plain, options = words[:end] + words[end + 1 :], words[:end]
        else:
            plain = options = words
        if any(word.startswith("-") and len(word) > 1 for word in options):
            return words
        for action in self._actions:
            if action.option_strings or not plain:
                continue
            if action.nargs in ("*", "+"):
                before = getattr(known, action.dest, None)
                setattr(known, action.dest, [*(before if before is not action.default and before else ()), *plain])
                return []
            if getattr(known, action.dest, None) in (None, action.default):
                setattr(known, action.dest, plain.pop(0))
        return plain

    def _tell_kinds(self) -> None:
        """Say in the help what belongs to some kinds only, and the defaults of the kind that is there unless said.

        pydantic-settings knows one text and one default for an option that several kinds have: those of the last.
        """
        for action in self._actions:
            section, _, name = action.dest.partition(".")
            field = self.command.model_fields.get(section)
            kinds = members(field.annotation) if field is not None and name and "." not in name else {}
            if not kinds or field is None or not action.help:
                continue
            own = type(field.default)
            of = {kind: cls for kind, cls in kinds.items() if name in cls.model_fields}
            chosen = own if name in getattr(own, "model_fields", {}) else next(iter(of.values()), own)
            said = (chosen.model_fields[name].description or "Which one.") if of else action.help
            only = f" [{', '.join(of)}]" if len(of) < len(kinds) else ""
            default = chosen.model_fields[name].default if of else None
            action.help = f"{said}{only} (default: {default})".replace("%", "%%")

    def _misplaced(self, word: str) -> str:
        """What is wrong with a word that no option takes."""
        if not word.startswith("-"):
            return f"`{word}` is not expected here: it is one word too many, or the option before it takes none"
        place = next((a for a in self._actions if not a.option_strings and a.dest == word.lstrip("-")), None)
        if place is not None:
            return f"`{word}` is not an option: {place.dest} is given without it, as `{self.prog} {place.metavar}`"
        flags = [flag for action in self._actions for flag in action.option_strings if flag not in ("-h", "--help")]
        return f"`{word}` is not an option.{did_you_mean(word, flags)}"

    def what_is_no_group(self, words: list[str]) -> str:
        """What is wrong where one value is given for settings that have names of their own; empty where none is."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        for word in words:
            name = word.partition("=")[0]
            inside = [flag for flag in flags if name.startswith("--") and flag.startswith(name + ".")]
            if inside:
                return f"`{name}` is a group of settings; give them by name: {', '.join(inside)}"
        return ""


def read_flags(cls: type[Command], verb: str, words: list[str]) -> dict[str, Any]:
    """The nested values that the flags give; nothing for flags that are not there."""
    settings = type(
        cls.__name__,
        (cls, BaseSettings),
        {
            "__doc__": cls.__doc__,
            "model_config": SettingsConfigDict(extra="forbid", frozen=True),
            "__module__": cls.__module__,
        },
    )
    prog = f"groundup {verb}"
    parser = _Parser(
        prog=prog,
        description=cls.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        command=cls,
    )
    words = [flag_spelling(word) for word in words]
    try:
        source = _source(settings, parser, words)
        return dict(source()) | parser.texts
    except SettingsError as error:
        raise UsageError(parser.what_is_no_group(words) or str(error)) from error


def _source(settings: Any, parser: "_Parser", words: list[str]) -> Any:
    return CliSettingsSource(
        settings,
        cli_prog_name=parser.prog,
        cli_parse_args=words,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_enforce_required=False,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        root_parser=parser,
        parse_args_method=_Parser.parse_words,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def flag_spelling(word: str) -> str:
    """`--out_dir` is `--out-dir`."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value
