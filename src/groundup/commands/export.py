"""`groundup export hf`: any model that can be loaded, as a complete Hugging Face folder; `export weights`: tensors.

The folder is written beside its final name, loaded again and compared with the source (greedy tokens of several
prompts) before it takes that name; when anything fails, nothing is left and an older folder stays as it was.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import as_size, say, warn
from groundup.base.errors import CheckpointError, UsageError
from groundup.base.files import atomic_folder, check_writable, explain_write_errors, read_json
from groundup.commands.command import Command
from groundup.commands.comparing import LONGEST, NEW_TOKENS, greedy, probe_prompts
from groundup.commands.named_model import model_of, tokenizer_beside

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
# What a model folder holds: nothing else is ever replaced by --overwrite.
MODEL_FILES = re.compile(
    r".+\.(json|safetensors|jinja|model|bpe|md)|merges\.txt|vocab\.txt|pytorch_model(-\d+-of-\d+)?\.bin"
)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "vocab.json", "merges.txt", "tokenizer.model"),
)


def read_size(text: str) -> int:
    """Bytes from `5GB`, `200MB`, `10KB` or a number; a ValueError otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *(KB|MB|GB|)", text.strip().upper())
    size = round(float(match[1]) * UNITS[match[2]]) if match else 0
    if size < 1:
        raise ValueError("a size such as 5GB, 200MB or 10KB is expected")
    return size


def check_size(text: str) -> str:
    """The text, if it is a size."""
    read_size(text)
    return text


class ExportHF(Command):
    """Write a complete Hugging Face folder (config, safetensors, tokenizer), and compare it with its source."""

    source: CliPositionalArg[str]
    """A run folder (its final/ is taken), a folder or file of weights in any known form, or a name (`tiny`)."""
    out_dir: Path
    """The folder to write."""
    dtype: str | None = None
    """float32, bfloat16 or float16; as stored when not given."""
    max_shard_size: Annotated[str, BeforeValidator(str), AfterValidator(check_size)] = "5GB"
    """Largest file of weights: 5GB, 200MB, 10KB."""
    tokenizer: Path | None = None
    """Take the tokenizer from this folder or tokenizer.json, not from beside the model."""
    average: int | None = Field(default=None, ge=2)
    """Of a run: write the mean of its last so many checkpoints' weights (training.keep says how many there are)."""
    overwrite: bool = False
    """Replace the model folder that is there already."""
    self_test: bool = True
    """Load the result and compare it with the source."""

    def run(self) -> dict[str, Any]:
        """Write, test, and print what was written."""
        source = model_of(self.source)
        target = Path(os.path.abspath(self.out_dir.expanduser()))
        check_target(target, source, self.overwrite)
        check_writable(target)
        from groundup.models.hub import load_model, save_model

        say(f"loading {source}")
        model, tokenizer = load_model(source, dtype=self.dtype), self._tokenizer(source)
        averaged = put_average(model, self.source, self.average) if self.average else []
        check_vocabulary(model.config.vocab_size, tokenizer)
        before = fingerprint(model, tokenizer)
        parameters, dtype = model.num_parameters(), str(model.dtype).removeprefix("torch.")
        with atomic_folder(target, replace=target.exists()) as folder:
            say(f"writing {parameters:,} parameters in {dtype}")
            save_model(model, folder, max_shard_bytes=read_size(self.max_shard_size))
            complete_configs(folder, source, tokenizer)
            write_tokenizer(folder, self.tokenizer or source, tokenizer)
            del model  # two models at once are not needed
            if self.self_test:
                say("loading it again, to compare")
                check_same(before, fingerprint(load_model(folder), tokenizer))
        files = sorted(path.name for path in target.iterdir())
        say(f"written to {target}: {', '.join(files)}")
        if tokenizer is None:
            warn("no tokenizer was found beside the model, so the folder has none: give one with --tokenizer")
        return {
            "source": str(source),
            "folder": str(target),
            "files": files,
            "averaged": averaged,
            "parameters": parameters,
            "dtype": dtype,
            "tokenizer": tokenizer is not None,
            "self_test": [list(tokens) for _, tokens in before] if self.self_test else None,
        }

    def _tokenizer(self, source: str) -> Any:
        if self.tokenizer is None:
            return tokenizer_beside(source)
        from groundup.tokenizers.hub import load_tokenizer

        return load_tokenizer(self.tokenizer)


class ExportWeights(Command):
    """Write the tensors of any known form under the names they have: as a .pth file, or as a folder of safetensors."""

    source: CliPositionalArg[str]
    """A folder or file of weights in any known form, or a name (`tiny`); RWKV's files too."""
    target: CliPositionalArg[Path]
    """A new .pth, .pt or .bin file for torch.load, or a new folder for model.safetensors."""
    max_shard_size: Annotated[str, BeforeValidator(str), AfterValidator(check_size)] = "5GB"
    """Largest file of safetensors: 5GB, 200MB, 10KB."""

    def run(self) -> dict[str, Any]:
        """Write them, and say how many."""
        from groundup.models.formats.formats import open_weights
        from groundup.models.formats.writing import write_weights

        target = self.target.expanduser()
        with explain_write_errors(target), open_weights(self.source) as weights:
            target = write_weights(weights, target, read_size(self.max_shard_size))
            tensors, nbytes = len(weights.names()), weights.nbytes
        say(f"written to {target}: {tensors:,} tensors, {as_size(nbytes)}")
        return {"source": self.source, "target": str(target), "tensors": tensors, "bytes": nbytes}


class ExportRWKV(Command):
    """Write an RWKV model as a .pth file in the authors' layout, which their `rwkv` library and others load."""

    source: CliPositionalArg[str]
    """A run folder (its final/ is taken), a model folder, or a file of weights."""
    target: CliPositionalArg[Path]
    """A new .pth file."""
    dtype: str | None = None
    """float32, bfloat16 or float16; as stored when not given."""

    def run(self) -> dict[str, Any]:
        """Write it."""
        source = model_of(self.source)
        from groundup.models.formats.rwkv import save_rwkv
        from groundup.models.hub import load_model

        model = load_model(source, dtype=self.dtype)
        target = save_rwkv(model, self.target.expanduser())
        say(f"written to {target}: {model.config.family()}, {model.num_parameters():,} parameters")
        return {"source": source, "target": str(target), "parameters": model.num_parameters()}


def put_average(model: Any, source: str, count: int) -> list[str]:
    """Give `model`, the run's final one, the mean weights of the run's last `count` checkpoints; their names.

    Raises:
        UsageError: `source` is no run folder, or holds fewer checkpoints.
    """
    from groundup.training.averaging import average_checkpoints
    from groundup.training.checkpoint import Checkpoints, load_model_tensors

    run = Path(source).expanduser()
    if not (run / "checkpoints").is_dir():
        raise UsageError(f"{source} is not a run folder with checkpoints: --average takes those of a run")
    found = Checkpoints(run / "checkpoints").complete()
    if len(found) < count:
        raise UsageError(
            f"{run} holds {len(found)} checkpoints, not {count}: ask for fewer, or train with a larger training.keep"
        )
    names = [path.name for path in found[-count:]]
    say(f"averaging {', '.join(names)}")
    mean = {name: tensor.to(model.dtype) for name, tensor in average_checkpoints(found[-count:]).items()}
    load_model_tensors(model, mean, run / "checkpoints")
    return names


def check_target(target: Path, source: str, overwrite: bool) -> None:
    """Refuse a target that would lose something: a file, a filled folder, the source itself.

    Raises:
        UsageError: saying which, and what to do.
    """
    with explain_write_errors(target):
        if target.exists() and not target.is_dir():
            raise UsageError(f"{target} is a file: give a folder to --out-dir")
        if not target.is_dir() or not any(target.iterdir()):
            return
    if not overwrite:
        raise UsageError(f"{target} is not empty: choose another folder, or say --overwrite to replace it")
    origin = Path(source).expanduser()
    if origin.exists() and origin.resolve().is_relative_to(target.resolve()):
        raise UsageError(f"{target} holds the source itself: choose another folder")
    foreign = sorted(path.name for path in target.iterdir() if path.is_dir() or not MODEL_FILES.fullmatch(path.name))
    if foreign or not (target / "config.json").is_file():
        what = f"it holds {', '.join(foreign[:3])}" if foreign else "it has no config.json"
        raise UsageError(f"{target} is not a model folder ({what}), so --overwrite does not replace it")


def check_vocabulary(vocab_size: int, tokenizer: Any) -> None:
    """Refuse a tokenizer whose ids the model has no embedding for; ids to spare (padding) are usual.

    Raises:
        CheckpointError: with both numbers.
    """
    if tokenizer is not None and tokenizer.vocab_size > vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the model only {vocab_size:,}: "
            "they do not belong together. Name the right one with --tokenizer"
        )


def fingerprint(model: Any, tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """(prompt, greedy continuation) of every probe prompt."""
    limit = (model.config.max_position_embeddings or LONGEST) - NEW_TOKENS
    prompts = probe_prompts(tokenizer, model.config.vocab_size, limit)
    return [(prompt, greedy(model, prompt, NEW_TOKENS)) for prompt in prompts]


def check_same(before: list[Any], after: list[Any]) -> None:
    """Raise a `CheckpointError` at the first prompt that the written model continues otherwise."""
    for (prompt, expected), (_, found) in zip(before, after, strict=True):
        if expected != found:
            raise CheckpointError(
                f"self-test failed: after {prompt[:12]} the source continues {expected}, the written model {found}. "
                "Nothing was kept; please report this"
            )


def complete_configs(folder: Path, source: str, tokenizer: Any) -> None:
    """Keep the source's generation settings, and let special ids come from the tokenizer where configs lack them."""
    from groundup.base.folders import write_json
    from groundup.models.formats.formats import find_weights

    path = find_weights(source)
    settings = (path if path.is_dir() else path.parent) / "generation_config.json"
    kept = read_json(settings) if settings.is_file() else {}
    if not isinstance(kept, dict):
        raise CheckpointError(f"{settings} must hold an object, found {type(kept).__name__}")
    config, generation = read_json(folder / "config.json"), read_json(folder / "generation_config.json")
    for part in ("bos", "eos", "pad"):
        number = getattr(tokenizer, f"{part}_id", None)
        if number is not None and config.get(f"{part}_token_id") is None:
            config[f"{part}_token_id"] = number
        if config.get(f"{part}_token_id") is not None:
            generation.setdefault(f"{part}_token_id", config[f"{part}_token_id"])
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", generation | kept)


def write_tokenizer(folder: Path, origin: str | Path, tokenizer: Any) -> None:
    """The tokenizer's files: copied as they are where there is a tokenizer.json, written otherwise."""
    from groundup.models.formats.formats import find_weights

    path = find_weights(origin)
    beside = path if path.is_dir() else path.parent
    if tokenizer is None:
        return
    if path.suffix == ".gguf" or not (beside / "tokenizer.json").is_file():
        tokenizer.save_pretrained(folder)
        return
    for name in TOKENIZER_FILES:
        if (beside / name).is_file():
            shutil.copyfile(beside / name, folder / name)
