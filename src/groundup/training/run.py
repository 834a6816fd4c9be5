"""The run folder: everything a training leaves behind, and all that any view of it reads.

runs/<id>/
    config.yaml      every setting, defaults included
    env.json         versions, machine, commit, command line, seed
    metrics.jsonl    one event a line: train, evaluate, sample, checkpoint, skip, rollback, stop
    samples.jsonl    generated texts
    checkpoints/     step-000040/ ...
    final/           the model as a Hugging Face folder
    report.html, tensorboard/
"""

import contextlib
import datetime
import json
import math
import os
import platform
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from groundup.base.errors import UsageError
from groundup.base.files import explain_write_errors, write_atomic
from groundup.training.expected import Expected

TIMING_KEYS = frozenset({"time", "tokens_per_second", "utilisation", "seconds", "memory"})
"""The keys of metrics.jsonl that differ between two runs of the same seed."""

PACKAGES = ("torch", "numpy", "safetensors", "pydantic", "tqdm")


class Run:
    """One run folder. `Run.open(path)` reads an existing one; the loop makes new ones."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        from html import escape

        cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in self.summary().items())
        return f"<table>{cells}</table>"

    # -- finding ------------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run in this folder; `UsageError` if there is none."""
        run = cls(path)
        if not run.config_path.is_file():
            raise UsageError(f"{path} is not a run folder: it has no config.yaml")
        return run

    @classmethod
    def list(cls, root: str | Path = "runs") -> "list[Run]":
        """All runs below `root`, oldest first."""
        found = [cls(path.parent) for path in Path(root).glob("*/config.yaml")]
        return sorted(found, key=lambda run: (run.config_path.stat().st_mtime, run.id))

    @classmethod
    def new_path(cls, root: str | Path = "runs", name: str = "") -> Path:
        """A folder name that is not taken: `name`, date, time and four random letters."""
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        return Path(root) / "-".join(filter(None, (name, now, secrets.token_hex(2))))

    # -- places -------------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def config_path(self) -> Path:
        """config.yaml."""
        return self.path / "config.yaml"

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl."""
        return self.path / "metrics.jsonl"

    @property
    def samples_path(self) -> Path:
        """samples.jsonl."""
        return self.path / "samples.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The trained model as a Hugging Face folder."""
        return self.path / "final"

    # -- reading ------------------------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The settings the run was started with."""
        return yaml.safe_load(self.config_path.read_text(encoding="utf-8")) or {}

    @property
    def expected(self) -> Expected | None:
        """What its recipe says of the end, if it does."""
        named = self.config.get("expected") if self.config_path.is_file() else None
        return Expected.parse(named, where=str(self.config_path)) if named else None

    @property
    def environment(self) -> dict[str, Any]:
        """Versions, machine, command line and seed; empty when the file is missing."""
        path = self.path / "env.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def metrics(self, event: str | None = None) -> "list[dict[str, Any]]":
        """All events in order, or those of one kind. A last line that is still being written is left out."""
        return [item for item in read_lines(self.metrics_path) if event is None or item.get("event") == event]

    def samples(self) -> "list[dict[str, Any]]":
        """All generated texts in order."""
        return list(read_lines(self.samples_path))

    def summary(self) -> dict[str, Any]:
        """Where the run stands: id, step, training loss, last and best validation loss, what it cost, how it ended.

        `expected` is the band that its recipe names, `verdict` where the last validation loss lies: within, below or
        above; None while the run is not over. `tokens_per_second` is the median of its log lines, `memory` bytes.
        """
        events = self.metrics()
        train = [e for e in events if e["event"] == "train"]
        validation = [e["loss"] for e in events if e["event"] == "evaluate" and "loss" in e]
        stop = [e for e in events if e["event"] == "stop"]
        rates = [e["tokens_per_second"] for e in train if "tokens_per_second" in e]
        expected = self.expected
        summary = {
            "id": self.id,
            "step": train[-1]["step"] if train else 0,
            "loss": train[-1]["loss"] if train else None,
            "validation_loss": validation[-1] if validation else None,
            "best_validation_loss": min(validation) if validation else None,
            "tokens": train[-1].get("tokens") if train else 0,
            "tokens_per_second": statistics.median(rates) if rates else None,
            "seconds": events[-1].get("time") if events else None,
            "memory": train[-1].get("memory") if train else None,
            "expected": expected.validation_loss if expected else None,
            "verdict": None,
            "state": stop[-1]["reason"] if stop and stop[-1] is events[-1] else "unfinished",
        }
        if expected and summary["state"] != "unfinished":
            summary["verdict"] = expected.verdict(summary["step"], summary["validation_loss"])
        return summary

    # -- writing ------------------------------------------------------------------------------------------------------

    def begin(self, config: Any, seed: int) -> None:
        """Make the folder and write config.yaml (a Config or a dict) and env.json."""
        text = config.to_yaml() if hasattr(config, "to_yaml") else yaml.safe_dump(config, sort_keys=False)
        write_atomic(self.config_path, text)
        write_atomic(self.path / "env.json", json.dumps(environment(seed), indent=2) + "\n")

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        append_line(self.metrics_path, record)

    def append_sample(self, record: dict[str, Any]) -> None:
        """Add a line to samples.jsonl."""
        append_line(self.samples_path, record)

    def sizes(self) -> dict[str, int]:
        """How long the append-only files are, flushed to the disk: what a checkpoint remembers."""
        return {path.name: _flushed_size(path) for path in (self.metrics_path, self.samples_path)}

    def rewind(self, sizes: dict[str, int]) -> None:
        """Cut the append-only files to these sizes: what was written after the checkpoint will be written again."""
        for path in (self.metrics_path, self.samples_path):
            size = sizes.get(path.name, 0)
            if path.exists() and path.stat().st_size > size:
                with explain_write_errors(path):
                    os.truncate(path, size)


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON line, handed to the system at once."""
    # JSON has no NaN: such a number is written as text, "nan" or "inf"
    plain = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}
    line = json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n"
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(line.encode("utf-8"))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file that may still grow; lines that are not whole are skipped."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(json.JSONDecodeError):
                item = json.loads(line)
                if isinstance(item, dict):
                    yield item


def reproducible(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events without the keys that hold times: equal for two runs of the same settings and seed."""
    return [{key: value for key, value in event.items() if key not in TIMING_KEYS} for event in events]


def _flushed_size(path: Path) -> int:
    if not path.exists():
        return 0
    with explain_write_errors(path), open(path, "rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def environment(seed: int) -> dict[str, Any]:
    """Versions, machine, git commit of the working folder, command line, seed, time."""
    return {
        "groundup": _version("groundup"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "commit": _commit(),
        "command": sys.argv,
        "seed": seed,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(name: str) -> str | None:
    if name == "groundup":
        from groundup import __version__

        return __version__
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.strip()
    return None
