"""`groundup models show`: what a model is made of."""

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic_settings import CliPositionalArg

from groundup.base.console import as_size, say, table, warn
from groundup.base.errors import GroundupError, UsageError
from groundup.base.files import write_atomic
from groundup.commands.command import Command
from groundup.estimates.params import BYTES, active_parameters
from groundup.models.architecture.drawing import as_svg, as_text
from groundup.models.architecture.outline import Outline
from groundup.models.cards import Card, cards
from groundup.models.catalogue import config_of_size, sizes


class ModelsShow(Command):
    """What a model is: what is known of its family, a drawing of its architecture, parameters, operations, memory."""

    model: CliPositionalArg[str]
    """A folder or file of weights in any known form, a name (`tiny`), a published size (`llama-7b`), or a family
    (`llama3`, `gpt4`).
    """
    tensors: bool = False
    """List every tensor with its dtype and shape."""
    svg: Path | None = None
    """Write the drawing to this SVG file too."""

    def run(self) -> dict[str, Any]:
        """Print it."""
        result: dict[str, Any] = {"model": self.model}
        card = None if Path(self.model).exists() else find_card(self.model)
        if card is not None:
            result["card"] = card.model_dump(mode="json", exclude_none=True)
            say(card_text(card) + "\n")
        if self.model in sizes() and not Path(self.model).exists():
            config, stored = config_of_size(self.model), dict[str, Any](form="published size")
        elif card is not None and self.model in cards():
            return self._of_family(card, result)
        else:
            config, stored = self._open()
        result |= {k: v for k, v in stored.items() if k != "tensors"}
        drawn = None
        if config is not None:
            from groundup.models.architecture.trace import outline

            drawn = outline(config, self.model)
            result |= describe(config, drawn) | {"outline": as_json(drawn)}
            self._write_svg(drawn)
        say(_summary(result))
        if drawn is not None:
            say("\n" + as_text(drawn))
        if self.tensors:
            rows = stored.get("tensors", [])
            result["tensors"] = rows
            say("\n" + table([[r["name"], r["dtype"], _shape(r["shape"])] for r in rows], ["tensor", "dtype", "shape"]))
        return result

    def _of_family(self, card: Card, result: dict[str, Any]) -> dict[str, Any]:
        """A family as such: its first size that can be built is drawn."""
        size = next((size.name for size in card.sizes if size.name in sizes()), None)
        if size is None:
            if self.svg is not None:
                raise UsageError(f"{card.title} cannot be drawn: no published size of it is built here")
            return result
        from groundup.models.architecture.trace import outline

        drawn = outline(config_of_size(size), size)
        self._write_svg(drawn)
        say(as_text(drawn))
        return result | {"drawn": size}

    def _write_svg(self, drawn: Outline) -> None:
        if self.svg is not None:
            write_atomic(self.svg, as_svg(drawn))
            say(f"the drawing is in {self.svg}")

    def _open(self) -> tuple[Any, dict[str, Any]]:
        from groundup.models.formats.formats import find_format, find_weights

        path = find_weights(self.model)
        form = find_format(path)
        with form.open(path) as weights:
            stored = stored_tensors(weights) | {"form": form.name}
            try:
                return form.config(weights), stored
            except GroundupError as error:
                warn(f"the tensors alone are shown: {error}")
                return None, stored


def stored_tensors(weights: Any) -> dict[str, Any]:
    """What a reader lists: tensors, their number, elements and bytes by dtype."""
    rows, by_dtype = [], {}
    for name in weights.names():
        meta = weights.meta(name)
        rows.append({"name": name, "dtype": meta.dtype, "shape": list(meta.shape)})
        by_dtype[meta.dtype] = by_dtype.get(meta.dtype, 0) + meta.nbytes
    files = [str(file) for file in weights.files]
    return {"files": files, "stored": {"tensors": len(rows), "bytes": by_dtype}, "tensors": rows}


def describe(config: Any, drawn: Outline) -> dict[str, Any]:
    """Config, parameters by part, operations, and memory for inference."""
    from groundup.models.architecture.counts import parameters_by_part

    parts = parameters_by_part(config)
    total = sum(parts.values())
    active = active_share(config, total)
    memory = {f"weights in {dtype}": round(total * BYTES[dtype]) for dtype in ("fp32", "bf16", "int8", "int4")}
    if drawn.state_bytes:
        context = config.max_position_embeddings
        memory[f"keys and values of {context} tokens in bf16"] = drawn.state_bytes * context
    if drawn.constant_state_bytes:
        memory["a constant state"] = drawn.constant_state_bytes
    return {
        "family": config.model_type,
        "config": config.model_dump(mode="json", exclude={"kept"}),
        "parts": parts,
        "parameters": total,
        **({"active_parameters": active} if active != total else {}),
        "flops_per_token": drawn.flops,
        "state_bytes_per_token": drawn.state_bytes,
        "memory": memory,
    }


def active_share(config: Any, total: int) -> int:
    """Parameters that one token visits: all, except in mixtures of experts."""
    try:
        return active_parameters(config)
    except UsageError:  # a family that estimates do not know
        return total


def card_text(card: Card) -> str:
    """What is known of a family, for a terminal; "(?)" follows what no source confirms so far."""
    lines = [f"{card.title} ({card.organisation}, {card.date})" + (f": {card.paper}" if card.paper else "")]
    if card.differs:
        lines.append(f"from {card.ancestor or 'its ancestors'}:")
        lines += [f"  - {words}" for words in card.differs]
    for field in ("norm", "residual", "activation", "positions", "attention", "context", "data", "license", "notes"):
        value = getattr(card, field)
        if value is not None:
            lines += _fact(field, _marked(value, field in card.unconfirmed))
    if card.withheld:
        lines += _fact("withheld", ", ".join(card.withheld))
    lines += [part for part in (_stages(card), _sizes(card), _numbers(card)) if part]
    if "(?)" in "\n".join(lines):
        lines.append("\n(?) no source confirms it so far")
    return "\n".join(lines)


WIDTH = 116

# Columns of a card's sizes and the fields they show.
SIZE_COLUMNS = {
    **{"parameters": "parameters", "active": "active", "trained on": "tokens", "released": "date"},
    **{"layers": "layers", "width": "width", "heads": "heads", "kv heads": "kv_heads"},
    **{"context": "context", "vocabulary": "vocabulary"},
}


def _fact(name: str, text: str) -> list[str]:
    """A name and what is told, in lines that a terminal holds."""
    return textwrap.wrap(f"{name:<12}{text}", WIDTH, subsequent_indent=" " * 12, drop_whitespace=True) or [name]


def _stages(card: Card) -> str:
    """The steps of a pipeline, in their order."""
    lines = []
    for i, stage in enumerate(card.stages, start=1):
        prompts = f": {stage.prompts:,} prompts" if stage.prompts else ""
        lines.append(f"{i}. {stage.name}{prompts}" + (f", {stage.origin}" if stage.origin else ""))
        lines += textwrap.wrap(stage.how or "", WIDTH, initial_indent="   ", subsequent_indent="   ")
    return "\n" + "\n".join(lines) if lines else ""


def _sizes(card: Card) -> str:
    """The published sizes as a table of those columns that any of them fills."""
    shown = {
        column: field
        for column, field in SIZE_COLUMNS.items()
        if column == "parameters" or any(getattr(size, field) is not None for size in card.sizes)
    }
    rows = [
        [size.name, *(_marked(getattr(size, field), field in size.unconfirmed) for field in shown.values())]
        for size in card.sizes
    ]
    return "\n" + table(rows, ["size", *shown]) if rows else ""


def _numbers(card: Card) -> str:
    """The published results as a table."""
    rows = [[n.benchmark, n.size, _marked(n.value, n.unconfirmed), n.source] for n in card.numbers]
    return "\n" + table(rows, ["published result", "size", "value", "source"]) if rows else ""


def _marked(value: Any, unconfirmed: bool) -> str:
    if value is None:
        return "-"
    return (f"{value:,}" if isinstance(value, int) else str(value)) + " (?)" * unconfirmed


def find_card(name: str) -> Card | None:
    """The card of a family or of a published size."""
    named = (card for key, card in cards().items() if name == key or name in {size.name for size in card.sizes})
    return next(named, None)


def as_json(drawn: Outline) -> dict[str, Any]:
    """An outline as plain values."""
    groups = [asdict(group) | {"layers": [group.layers.start, group.layers.stop]} for group in drawn.groups]
    return asdict(drawn) | {"groups": groups}


def _summary(result: dict[str, Any]) -> str:
    lines = [f"{result['model']}: {result['form']}" + (f", {result['family']}" if "family" in result else "")]
    if "stored" in result:
        stored = result["stored"]
        dtypes = ", ".join(f"{dtype} {as_size(count)}" for dtype, count in stored["bytes"].items())
        lines.append(f"stored: {stored['tensors']:,} tensors in {len(result['files'])} file(s): {dtypes}")
    if "config" in result:
        shown = {key: value for key, value in result["config"].items() if value is not None}
        lines += ["", *(f"{key:<26}{value}" for key, value in shown.items()), ""]
        total = result["parameters"]
        rows = [[part, f"{count:,}", f"{count / total:.1%}"] for part, count in result["parts"].items()]
        rows.append(["all", f"{total:,}", "100.0%"])
        if active := result.get("active_parameters"):
            rows.append(["active for one token", f"{active:,}", f"{active / total:.1%}"])
        lines += [table(rows, ["part", "parameters", "share"]), ""]
        lines.append("memory: " + ", ".join(f"{as_size(count)} {what}" for what, count in result["memory"].items()))
    return "\n".join(lines)


def _shape(shape: list[int]) -> str:
    return " x ".join(map(str, shape)) or "scalar"
