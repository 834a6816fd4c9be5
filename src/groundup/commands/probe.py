"""`groundup probe`: what the layers of a frozen model know, read off by a small classifier for each."""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import say, table, warn
from groundup.base.errors import DataError, UsageError, did_you_mean
from groundup.commands.command import Command
from groundup.commands.named_model import model_and_tokenizer

Row = tuple[str, str]
"""A text and its label."""


class Probe(Command):
    """What each layer of a model knows: a small classifier is trained on its frozen vectors, and judged on texts that
    it has not seen.
    """

    model: CliPositionalArg[str]
    """A model folder, that of a run or of an adapter, a file of weights, or a name (`tiny`)."""
    data: CliPositionalArg[Path]
    """Texts with a label each: .jsonl, .json, .csv, .tsv or .parquet."""
    text: str = "text"
    """The column of texts."""
    label: str = "label"
    """The column of labels; they may be words or numbers."""
    layers: list[str] = []
    """Names of modules (`embed`, `blocks.3`, `norm`); the embedding and every block when none is given."""
    pooling: Literal["mean", "first", "last"] = "mean"
    """What of a text is looked at: the mean of its tokens' vectors, the first, or the last."""
    hidden: int | None = Field(default=None, ge=1)
    """Width of a layer between (an MLP); none for a linear probe."""
    steps: int = Field(default=200, ge=1)
    """Updates of each probe, on all of its texts."""
    lr: float = Field(default=0.01, gt=0)
    """Its learning rate."""
    held_out: float = Field(default=0.2, gt=0, lt=1)
    """The share of texts that the probes are judged on."""
    limit: int | None = Field(default=None, ge=2)
    """Most texts."""
    longest: int = Field(default=512, ge=1)
    """Most tokens of a text, as far as the model's context allows; more are cut off at the end."""
    seed: int = 0
    """Of the split and of the probes' first weights."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""

    def run(self) -> dict[str, Any]:
        """Print a table: accuracy layer by layer, beside that of always saying the most frequent label."""
        rows = self._rows()
        names = sorted({label for _, label in rows})
        if len(names) < 2:
            raise DataError(
                f"{self.data}: all {len(rows)} texts have the label {names[0]!r}: a probe needs two or more"
            )
        import torch

        from groundup.adapters.probe import Settings, features, probe_layers

        model, tokenizer = model_and_tokenizer(self.model, device=self.device)
        layers = self._layers(model)
        longest = min(self.longest, model.config.max_position_embeddings or self.longest)
        ids = [tokenizer.encode(text)[:longest] for text, _ in rows]
        kept = [i for i, row in enumerate(ids) if row]
        if len(kept) < len(rows):
            warn(f"{len(rows) - len(kept)} texts have no token and are left out")
        order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(self.seed)).tolist()
        tests = max(1, round(self.held_out * len(kept)))
        judged, used = ([kept[i] for i in part] for part in (order[:tests], order[tests:]))
        labels = torch.tensor([names.index(label) for _, label in rows])
        self._check(labels[used], names)
        say(f"{len(used)} texts to learn from, {len(judged)} to judge; {len(names)} labels; {len(layers)} layers")
        vectors = [features(model, [ids[i] for i in part], layers, self.pooling) for part in (used, judged)]
        settings = Settings(hidden=self.hidden, steps=self.steps, lr=self.lr, seed=self.seed)
        found = probe_layers(vectors[0], labels[used], vectors[1], labels[judged], settings)
        most = Counter(labels[used].tolist()).most_common(1)[0][0]
        chance = (labels[judged] == most).float().mean().item()
        lines = [[each.layer, f"{each.accuracy:.1%}", f"{each.accuracy - chance:+.1%}"] for each in found]
        say(table([["always the most frequent", f"{chance:.1%}", ""], *lines], ["layer", "accuracy", "above that"]))
        return {
            "model": self.model,
            "texts": len(used),
            "judged": len(judged),
            "labels": names,
            "most_frequent": chance,
            "layers": {each.layer: each.accuracy for each in found},
        }

    def _rows(self) -> list[Row]:
        from groundup.data.problems import Problems
        from groundup.data.records import READERS
        from groundup.data.sources import kind_of

        file, problems = self.data.expanduser(), Problems()
        if not file.is_file():
            raise DataError(f"no file at {self.data}: give one of texts with labels, a record a line")
        reader = READERS.get(kind_of(file))
        if reader is None:
            raise DataError(f"{self.data} is no file of records with columns: {', '.join(READERS)} are")
        rows: list[Row] = []
        for line, record in reader(file, problems):
            for column in (self.text, self.label):
                if record.get(column) is None:
                    hint = did_you_mean(column, list(record))
                    raise DataError(
                        f"{self.data}:{line} has no `{column}`.{hint} Its columns: {', '.join(record)}. Name them with "
                        "--text and --label"
                    )
            rows.append((str(record[self.text]), str(record[self.label])))
            if len(rows) == self.limit:
                break
        if len(rows) < 2:
            raise DataError(f"{self.data} holds {len(rows)} texts: a probe needs some to learn from and some to judge")
        return rows

    def _layers(self, model: Any) -> list[str]:
        there = dict(model.named_modules())
        unknown = next((name for name in self.layers if name not in there), None)
        if unknown is not None:
            some = [name for name in there if name and name.count(".") < 2]
            raise UsageError(
                f"{self.model} has no module {unknown}.{did_you_mean(unknown, some)} Some: {', '.join(some)}"
            )
        return self.layers or [
            "embed",
            *(name for name in there if name.startswith("blocks.") and name.count(".") == 1),
        ]

    def _check(self, labels: Any, names: list[str]) -> None:
        absent = sorted(set(range(len(names))) - set(labels.tolist()))
        if absent:
            warn(f"no text labelled {names[absent[0]]!r} is among those to learn from: another --seed, or more texts")
