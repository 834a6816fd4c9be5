"""Config: one description of a thing's settings, used as flags, YAML, Python and HTTP bodies.

A Config is frozen and refuses unknown keys; the string under an attribute is its help text. Variants of one idea
(optimizers, objectives, ...) subclass a common base, each with its own `kind`; `one_of(Base)` is their union:

    class Schedule(Config): ...
    class Cosine(Schedule):
        kind: Literal["cosine"] = "cosine"

    class Train(Config):
        schedule: one_of(Schedule) = Cosine()

Modules that only define Configs import no torch, so that the command line starts fast.
"""

import functools
import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from groundup.base.errors import UsageError, did_you_mean


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


FromText = BeforeValidator(_number)
"""For a choice of whole numbers, Annotated[Literal[4, 8], FromText]: on the command line all values are text."""


class Config(BaseModel):
    """Frozen settings; unknown keys are errors; attribute docstrings are the help."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _same_kind_as_default(cls, values: Any) -> Any:
        """`{"optimizer": {"lr": 1e-3}}` means the default optimizer with another lr."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            given, kind = filled.get(name), getattr(field.default, "kind", None)
            if isinstance(given, dict) and kind is not None and "kind" not in given:
                filled[name] = {"kind": kind, **given}
        return filled

    @classmethod
    def parse(cls, values: dict[str, Any], where: str = "settings") -> Self:
        """Validate `values`; a `UsageError` that names `where`, each wrong key and the nearest known one otherwise."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UsageError(explain(error, cls, where)) from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file of this Config's fields."""
        return cls.parse(read_yaml(path), where=str(path))

    def to_yaml(self) -> str:
        """Every field, defaults included; `from_yaml` reads it back to an equal Config."""
        values = self.model_dump(mode="json", by_alias=True)
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        # PyYAML writes these three as they are, and reads them as ends of lines.
        return yaml.safe_dump(values, sort_keys=False) if {"\x85", "\u2028", "\u2029"} & {*text} else text


def members(base: type[Config]) -> Iterator[type[Config]]:
    """The subclasses of `base` that have a `kind` of their own, in order of definition."""
    for cls in base.__subclasses__():
        if "kind" in cls.model_fields:
            yield cls
        yield from members(cls)


def one_of(base: type[Config]) -> Any:
    """The union of `base`'s members, told apart by `kind`: for use as a field's type."""
    found = tuple(dict.fromkeys(members(base)))
    if len(found) == 1:
        return found[0]
    return Annotated[functools.reduce(operator.or_, found), Field(discriminator="kind")]


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key that stands twice, where PyYAML keeps the last without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` stands twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; a `UsageError` that names file and line otherwise."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no settings file at {path}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from None
    if values is None:
        raise UsageError(f"{path} is empty: it must hold settings, one `name: value` a line")
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold a mapping of settings, found {type(values).__name__}")
    return values


def explain(error: ValidationError, cls: type[BaseModel], where: str) -> str:
    """A validation error as text for people: one line a problem."""
    lines = [f"{where}: {error.error_count()} problem{'s' * (error.error_count() > 1)}"]
    for item in error.errors():
        lines.append("  " + _explain_item(item, cls))
    return "\n".join(lines)


def _explain_item(item: ErrorDetails, cls: type[BaseModel]) -> str:
    name = ".".join(str(part) for part in item["loc"]) or "settings"
    if item["type"] == "extra_forbidden":
        leaf, known = str(item["loc"][-1]), known_names(cls)
        hint = " Another kind or section has it." if leaf in known else did_you_mean(leaf, known)
        return f"`{name}` is not a setting.{hint}"
    if item["type"] == "missing":
        return f"`{name}` is required"
    if item["type"] == "union_tag_invalid":
        context = item.get("ctx", {})
        tag, known = context["tag"], context["expected_tags"]
        hint = did_you_mean(str(tag), known.replace("'", "").split(", "))
        return f"`{name}` has no kind `{tag}`.{hint} One of: {known}"
    message = item["msg"].removeprefix("Value error, ")
    return f"`{name}`: {message} (got {item['input']!r:.80})"


@functools.cache
def known_names(cls: type[BaseModel]) -> frozenset[str]:
    """Every field name in a Config and in the Configs inside it."""
    names: set[str] = set()
    pending: list[Any] = [cls]
    seen: set[Any] = set()
    while pending:
        current = pending.pop()
        if isinstance(current, type) and issubclass(current, BaseModel):
            if current in seen:
                continue
            seen.add(current)
            for name, field in current.model_fields.items():
                names.add(field.alias or name)
                pending.append(field.annotation)
                pending.extend(field.metadata)
        else:
            pending.extend(getattr(current, "__args__", ()))
    return frozenset(names)
