"""Objects of tokenizer.json: checked access that knows where it stands, and parts that read and write themselves."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from groundup.base.errors import CheckpointError, did_you_mean

Json = dict[str, Any]
MAX_ID = 2**24
MAX_DEPTH = 16  # of sequences within sequences


class Part:
    """An object inside a JSON file that knows where it stands, for error messages."""

    def __init__(self, value: Any, where: str, depth: int = 0):
        if not isinstance(value, dict):
            raise CheckpointError(f"{where}: an object is expected, found {type(value).__name__}")
        if depth > MAX_DEPTH:
            raise CheckpointError(f"{where}: parts are nested more than {MAX_DEPTH} deep")
        self.value: Json = value
        self.where = where
        self.depth = depth
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

    def required(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """The value at `key`, which must be there."""
        found = self.get(key, kind)
        if found is None:
            raise CheckpointError(f"{self.where}: there is no `{key}`")
        return found

    def part(self, key: str) -> "Part | None":
        """The object at `key`, or None."""
        found = self.value.get(key)
        return None if found is None else Part(found, f"{self.where}.{key}", self.depth + 1)

    def parts(self, key: str) -> "list[Part]":
        """The objects in the list at `key`."""
        found = self.required(key, list)
        return [Part(value, f"{self.where}.{key}[{place}]", self.depth + 1) for place, value in enumerate(found)]

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


class Component:
    """One part of a tokenizer. A subclass is a dataclass whose fields are the settings in the file, under their names.

    A field without a default must be in the file; fields of other kinds than bool, str and int, and settings that only
    older files have (`legacy`), are the business of the subclass's own `from_json`.
    """

    type: ClassVar[str]
    legacy: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def from_json(cls, part: Part) -> Self:
        """Read the settings.

        Raises:
            CheckpointError: a setting that is missing, of the wrong kind, or not known.
        """
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        part.only(**{field.name: Any for field in fields}, **dict.fromkeys(cls.legacy, Any))
        return cls(**{field.name: cls._setting(part, field) for field in fields})

    @classmethod
    def _setting(cls, part: Part, field: "dataclasses.Field[Any]") -> Any:
        kind: Any = field.type
        if hasattr(kind, "from_json"):
            found = part.part(field.name)
            if found is None:
                raise CheckpointError(f"{part.where}: there is no `{field.name}`")
            return kind.from_json(found)
        kinds = getattr(kind, "__args__", kind)
        if field.default is dataclasses.MISSING:
            return part.required(field.name, kinds)
        return part.get(field.name, kinds, field.default)

    def to_json(self) -> Json:
        """The object in tokenizer.json."""
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {"type": self.type} | {
            name: value.to_json() if hasattr(value, "to_json") else value for name, value in settings.items()
        }


def read_component(part: Part, known: Mapping[str, type[Component]], what: str) -> Any:
    """The component that `part` describes, of those that are `known` by their type.

    Raises:
        CheckpointError: the type is not known, or its settings are wrong.
    """
    if not isinstance(part.type, str) or part.type not in known:
        hint = did_you_mean(str(part.type), known)
        raise CheckpointError(f"{part.where}: the {what} {part.type!r:.80} is not supported.{hint}")
    return known[part.type].from_json(part)
