"""The report of a run folder, from its files alone: config.yaml, metrics.jsonl, env.json, samples.jsonl, results.json.

Every number in metrics.jsonl becomes a curve: event "train" gives the line `training`, "evaluate" `validation`.
results.json is optional; a command writes it to add what only it knows:
{"title", "lead", "command", "facts": [{"label", "value", "note"}],
 "tables": [{"title", "header", "rows", "note", "command", "best"}], "next": [{"text", "command"}]}
"""

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundup.base.errors import DataError
from groundup.pages.charts import Chart, Line, Table, show, spread
from groundup.pages.report import Code, Fact, Report, Sample, Samples, Section

# What we know of a metric: title, axis, what to see in it. Others are drawn under their own names, after these.
KNOWN = {
    "loss": ("Loss", "nats per token", "The mean surprise at the next token. Validation text was never trained on."),
    "accuracy": ("Accuracy", "share of tokens", "How often the most likely next token is the right one."),
    "bits_per_byte": ("Bits per byte", "bits", "A loss that any tokenizer, and gzip, can share."),
    "lr": ("Learning rate", "step size", "Warm-up, then the schedule's descent."),
    "learning_rate": ("Learning rate", "step size", "Warm-up, then the schedule's descent."),
    "grad_norm": ("Gradient norm", "norm before clipping", "Spikes here come before spikes of the loss."),
    "tokens_per_second": ("Speed", "tokens per second", "Drops mark evaluation, sampling and saving."),
    "utilisation": ("Utilisation", "share of measured peak", "Arithmetic done, over what matrix products reach here."),
}  # fmt: skip
LINE_NAMES = {"train": "training", "evaluate": "validation"}
NOT_CURVES = {"step", "time", "epoch", "tokens", "tokens_seen", "rows", "documents"}
PREFIXES = ("validation_", "valid_", "eval_", "val_", "train_")
MOST_SAMPLES = 6


def write_report(run_folder: str | Path) -> Path:
    """Write `report.html` into a run folder, from the folder's files; the path of the report."""
    folder = Path(run_folder)
    if not folder.is_dir():
        raise DataError(f"no run folder at {folder}: `groundup runs list` shows the runs here")
    return read_run(folder).write(folder / "report.html")


def read_run(folder: Path) -> Report:
    """The report of a run folder as data."""
    results = read_json(folder / "results.json")
    metrics = read_jsonl(folder / "metrics.jsonl")
    command = results.get("command") or made_by(read_json(folder / "env.json"))
    charts = curves(metrics, command)
    sections = [
        Section("measures", "How good it is", "", [table(entry, command) for entry in results.get("tables", [])]),
        Section("samples", "What it writes", SAMPLES_TEXT, samples(read_jsonl(folder / "samples.jsonl"), command)),
        Section("curves", "How it learned", CURVES_TEXT, charts),
        Section("settings", "Settings and machine", "", codes(folder)),
        Section("next", "What to try next", "", next_steps(results.get("next", []))),
    ]
    return Report(
        title=str(results.get("title") or f"Run {folder.name}"),
        lead=str(results.get("lead") or "What was trained, how it went, and what came out."),
        facts=[Fact(**entry) for entry in results.get("facts", [])] or facts(metrics),
        sections=[section for section in sections if section.blocks],
        footer=f"Made from the files in {folder.name}/" + (f" that came from: {command}" if command else ""),
    )


def made_by(environment: dict[str, Any]) -> str:
    """The command line that env.json keeps, as one would type it; empty where none was kept."""
    words = [str(word) for word in environment.get("command") or []]
    if not words:
        return ""
    program = Path(words[0])
    if program.stem == "groundup" or (program.name == "__main__.py" and program.parent.name == "groundup"):
        return shlex.join(["groundup", *words[1:]])
    return shlex.join([*(["python"] if program.suffix == ".py" else []), *words])


SAMPLES_TEXT = "The same prompts, before, during and after training."
CURVES_TEXT = "Each figure is drawn from metrics.jsonl; the numbers stand in the table below it."


def curves(metrics: Iterable[dict[str, Any]], command: str) -> list[Chart]:
    """One chart for each number in the metrics, with a line for training and one for validation."""
    lines: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for record in metrics:
        name = LINE_NAMES.get(record.get("event", ""))
        if name is None or "step" not in record:
            continue
        for key, value in record.items():
            if isinstance(value, float | int) and not isinstance(value, bool) and key not in NOT_CURVES:
                x, y = lines.setdefault(plain_key(key), {}).setdefault(name, ([], []))
                x.append(record["step"])
                y.append(value)
    order = [*(key for key in KNOWN if key in lines), *sorted(lines.keys() - KNOWN.keys())]
    return [chart(key, lines[key], command) for key in order]


def plain_key(key: str) -> str:
    """`validation_loss` is the `loss` of the validation line."""
    return next((key.removeprefix(prefix) for prefix in PREFIXES if key.startswith(prefix)), key)


def chart(key: str, lines: dict[str, tuple[list[float], list[float]]], command: str) -> Chart:
    """The chart of one metric."""
    title, label, note = KNOWN.get(key, (key.replace("_", " ").capitalize(), key.replace("_", " "), ""))
    drawn = [Line(name, *lines[name], series=i) for i, name in enumerate(LINE_NAMES.values()) if name in lines]
    return Chart(f"chart-{key}", title, "step", label, drawn, note=note, command=command)


def facts(metrics: list[dict[str, Any]]) -> list[Fact]:
    """The summary of a run that names none: steps, losses, time."""
    trained = [record for record in metrics if record.get("event") == "train" and "loss" in record]
    charts = {chart.id: chart for chart in curves(metrics, "")}
    loss = charts.get("chart-loss")
    validation = (
        [y for line in loss.lines if line.name == "validation" for y in line.y if y is not None] if loss else []
    )
    found = []
    if trained:
        found += [
            Fact("steps", show(trained[-1]["step"])),
            Fact("training loss", show(trained[-1]["loss"]), "last step, nats per token"),
        ]
    if validation:
        found.append(Fact("validation loss", show(min(validation)), "best, nats per token"))
    if metrics and "time" in metrics[-1]:
        found.append(Fact("time", duration(float(metrics[-1]["time"]))))
    return found


def duration(seconds: float) -> str:
    """Seconds as 42 s, 3 min 12 s, or 5 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def samples(records: list[dict[str, Any]], command: str) -> list[Samples]:
    """The samples of up to six moments, the first and the last among them."""
    steps = list(dict.fromkeys(record.get("step", 0) for record in records))
    kept = spread(steps, MOST_SAMPLES)
    shown = [
        Sample(moment(record.get("step", 0), steps), str(record.get("prompt", "")), str(record.get("text", "")))
        for record in records
        if record.get("step", 0) in kept
    ]
    return [Samples(shown, command)] if shown else []


def moment(step: int, steps: list[int]) -> str:
    """The moment of a sample in words: "before training", "at step 200", "after training (400 steps)"."""
    if step == 0:
        return "before training"
    return f"after training ({show(step)} steps)" if step == steps[-1] else f"at step {show(step)}"


def table(entry: dict[str, Any], command: str) -> Table:
    """A table of results.json."""
    rows = [[show(cell) for cell in row] for row in entry["rows"]]
    return Table(
        str(entry.get("title", "")),
        [str(cell) for cell in entry["header"]],
        rows,
        note=str(entry.get("note", "")),
        command=str(entry.get("command") or command),
        best=entry.get("best", ()),
    )


def codes(folder: Path) -> list[Code]:
    """Settings and environment, folded away."""
    found = []
    if (folder / "config.yaml").is_file():
        text = (folder / "config.yaml").read_text(encoding="utf-8", errors="replace")
        found.append(Code("config.yaml: every setting, defaults included", text, open=False))
    environment = read_json(folder / "env.json")
    if environment:
        text = json.dumps(environment, indent=2, ensure_ascii=False)
        found.append(Code("env.json: the machine and the versions", text, open=False))
    return found


def next_steps(entries: list[dict[str, str]]) -> list[Code]:
    """What to do now, each with its command."""
    return [Code(entry["text"], entry.get("command", "")) for entry in entries]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that was cut off while it was written is left out."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # no newline after it: the writer was stopped
                break
            raise DataError(f"{path}, line {number} is not valid JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}, line {number} must hold a JSON object")
        records.append(record)
    return records
