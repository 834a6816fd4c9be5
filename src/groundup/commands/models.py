"""`groundup models list|show|verify`: what can be built or loaded, what a checkpoint holds, whether it is right."""

from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import as_size, progress, say, table, warn
from groundup.base.errors import GroundupError, MissingDependency, UsageError, did_you_mean
from groundup.base.folders import builtin_folders
from groundup.commands.command import Command
from groundup.commands.probe import NEW_TOKENS, encoded_texts, greedy, probe_prompts, tokenizer_beside
from groundup.estimates.memory import inference_memory
from groundup.estimates.params import BYTES, active_parameters, count_parameters
from groundup.estimates.shape import Shape
from groundup.models.catalogue import FAMILIES, config_of_size, sizes

COLUMNS = {
    "layers": "num_hidden_layers",
    "width": "hidden_size",
    "heads": "num_attention_heads",
    "kv heads": "num_key_value_heads",
    "context": "max_position_embeddings",
    "vocabulary": "vocab_size",
}
# Files by whose presence a folder may hold a model.
SIGNS = ("config.json", "params.json", "hparams.json")
# The row of the catalogue that a published checkpoint confirms, by how its size's name begins; the longest counts.
ROWS = {"gpt2": "LM-10", "llama-": "LM-25", "llama-2-": "LM-26", "llama-3-": "LM-28"}
# What the released weights of a size are known to write, greedily: (prompt, continuation). Random weights have the same
# shape, so a size that is not here is never confirmed.
KNOWN_TEXTS = {
    # Raschka 2024, chapter 6
    "gpt2": ("Every effort moves you", " forward.\n\nThe first step is to understand the importance of your work"),
}


class ModelsList(Command):
    """The families and published sizes that can be built, the built-in models, and those in local folders."""

    folders: CliPositionalArg[list[Path]] = Field(default_factory=lambda: [Path("runs")])
    """Where to look for models, two levels deep; `runs` when not given."""
    family: str | None = None
    """Show one family only."""

    def run(self) -> dict[str, Any]:
        """Print two tables: published sizes, and the models on this machine."""
        if self.family is not None and self.family not in FAMILIES:
            raise UsageError(
                f"no family `{self.family}`.{did_you_mean(self.family, FAMILIES)} One of: {', '.join(FAMILIES)}"
            )
        published = [_size(name, config) for name, config in sizes().items()]
        here = [_local(name, path) for name, path in builtin_folders().items()]
        here += [_local(str(path), path) for folder in self.folders for path in model_folders(folder)]
        if self.family is not None:
            published, here = ([m for m in part if m["family"] == self.family] for part in (published, here))
        say(f"families: {', '.join(FAMILIES)}")
        for title, rows in (("published sizes", published), ("on this machine", here)):
            if rows:
                say(f"\n{title}\n" + table([[_cell(value) for value in row.values()] for row in rows], rows[0]))
        return {"families": list(FAMILIES), "published": published, "local": here}


class ModelsShow(Command):
    """What a model is: its config, its parameters by part, what memory it takes, and its tensors."""

    model: CliPositionalArg[str]
    """A folder or file of weights in any known form, a name (`tiny`), or a published size (`llama-7b`)."""
    tensors: bool = False
    """List every tensor with its dtype and shape."""

    def run(self) -> dict[str, Any]:
        """Print it."""
        if self.model in sizes() and not Path(self.model).exists():
            config, stored = config_of_size(self.model), dict[str, Any](form="published size")
        else:
            config, stored = self._open()
        result = {"model": self.model, **{k: v for k, v in stored.items() if k != "tensors"}}
        if config is not None:
            result |= describe(config)
        say(_summary(result))
        if self.tensors:
            rows = stored.get("tensors", [])
            result["tensors"] = rows
            say("\n" + table([[r["name"], r["dtype"], _shape(r["shape"])] for r in rows], ["tensor", "dtype", "shape"]))
        return result

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


class ModelsVerify(Command):
    """Compare a checkpoint with transformers in float32: logits, greedy text, token ids. Exit code 1 if they differ."""

    model: CliPositionalArg[str]
    """A Hugging Face folder, or a name; transformers must know the family."""
    tolerance: float = Field(default=1e-4, gt=0)
    """Largest difference of logits that passes, relative to the largest logit."""
    new_tokens: int = Field(default=NEW_TOKENS, ge=1, le=512)
    """Tokens of greedy text to compare."""
    device: str = "cpu"
    """Where to compare: cpu, cuda, mps or auto."""

    def run(self) -> dict[str, Any]:
        """Print one line a prompt, then the verdict."""
        theirs = load_theirs(self.model, self.device)
        from groundup.models.hub import load_model

        ours, tokenizer = load_model(self.model, dtype="float32", device=self.device), tokenizer_beside(self.model)
        context = ours.config.max_position_embeddings
        prompts = probe_prompts(tokenizer, ours.config.vocab_size, context - self.new_tokens)
        checks = [compare(ours, theirs, ids, self.new_tokens) for ids in progress(prompts, label="comparing")]
        tokens = compare_tokenizers(self.model, tokenizer)
        family = ours.config.model_type
        result = {
            "model": self.model,
            "family": family,
            "max_difference": max(check["difference"] for check in checks),
            "max_logit": max(check["max_logit"] for check in checks),
            "prompts": checks,
            "tokenizer": tokens,
        }
        relative = result["max_difference"] / max(result["max_logit"], 1e-30)
        same_text = all(check["same_greedy"] for check in checks)
        result["passed"] = bool(relative <= self.tolerance and same_text and tokens != "different")
        result["published_size"] = size = published_size(ours.config)
        known = result["passed"] and writes_known_text(size, ours, tokenizer)
        result["confirms"] = [row_of(size)] if size and known else []
        say(_verdict(result, relative, self.tolerance))
        return result

    def exit_code(self, result: Any) -> int:
        """1 when something differed."""
        return 0 if result["passed"] else 1


def row_of(size: str) -> str:
    """The row of the catalogue that a published size belongs to."""
    return ROWS[max((sign for sign in ROWS if size.startswith(sign)), key=len)]


def writes_known_text(size: str | None, model: Any, tokenizer: Any) -> bool:
    """Whether the model continues a prompt as the released weights of that size are known to."""
    if size not in KNOWN_TEXTS or tokenizer is None:
        return False
    try:
        prompt, continuation = (tokenizer.encode(text) for text in KNOWN_TEXTS[size])
    except GroundupError:  # a vocabulary that lacks some of the characters
        return False
    return greedy(model, prompt, len(continuation)) == continuation


def _size(name: str, config: Any) -> dict[str, Any]:
    values = {column: getattr(config, field, None) for column, field in COLUMNS.items()}
    values["kv heads"] = values["kv heads"] or values["heads"]
    return {"name": name, "family": config.model_type, "parameters": _parameters(config), **values}


def _parameters(config: Any) -> int:
    try:
        return count_parameters(config)
    except UsageError:  # a family that estimates do not know: built without data, and counted
        return sum(parameters_by_part(config).values())


def _local(name: str, path: Path) -> dict[str, Any]:
    """A model folder as a row; what cannot be read says why in place of its form."""
    from groundup.models.formats.formats import find_format

    try:
        form = find_format(path)
        with form.open(path) as weights:
            config, nbytes = form.config(weights), weights.nbytes
            family, parameters = config.model_type, _parameters(config)
        return {"name": name, "family": family, "parameters": parameters, "bytes": nbytes, "form": form.name}
    except (GroundupError, OSError) as error:
        reason = "unreadable: " + str(error).split("\n")[0].removeprefix(f"{path} ")[:60]
        return {"name": name, "family": None, "parameters": None, "bytes": None, "form": reason}


def model_folders(root: Path) -> list[Path]:
    """The folders at or up to two levels below `root` that may hold a model."""
    if not root.is_dir():
        return []
    found = {file.parent for depth in ("", "*/", "*/*/") for sign in SIGNS for file in root.glob(depth + sign)}
    return sorted(found)


def stored_tensors(weights: Any) -> dict[str, Any]:
    """What a reader lists: tensors, their number, elements and bytes by dtype."""
    rows, by_dtype = [], {}
    for name in weights.names():
        meta = weights.meta(name)
        rows.append({"name": name, "dtype": meta.dtype, "shape": list(meta.shape)})
        by_dtype[meta.dtype] = by_dtype.get(meta.dtype, 0) + meta.nbytes
    files = [str(file) for file in weights.files]
    return {"files": files, "stored": {"tensors": len(rows), "bytes": by_dtype}, "tensors": rows}


def describe(config: Any) -> dict[str, Any]:
    """Config, parameters by part, and memory for inference."""
    parts = parameters_by_part(config)
    total = sum(parts.values())
    memory = {f"weights in {dtype}": round(total * BYTES[dtype]) for dtype in ("fp32", "bf16", "int8", "int4")}
    try:
        shape = Shape.of(config)
        memory[f"keys and values of {shape.context} tokens in bf16"] = inference_memory(shape).kv_cache
        active = active_parameters(shape) if shape.mixture else None
    except UsageError:  # a family that estimates do not know
        active = None
    return {
        "family": config.model_type,
        "config": config.model_dump(mode="json", exclude={"kept"}),
        "parts": parts,
        "parameters": total,
        **({"active_parameters": active} if active else {}),
        "memory": memory,
    }


def parameters_by_part(config: Any) -> dict[str, int]:
    """The model's own parameters, counted by where they stand; tied ones once."""
    import torch

    from groundup.models.catalogue import model_class

    with torch.device("meta"):
        model = model_class(config)(config)
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = _part(name)
        parts[part] = parts.get(part, 0) + parameter.numel()
    return parts


PARTS = (
    ("embed.tokens", "token embedding"),
    ("embed.", "other embeddings"),
    (".attn.", "attention"),
    (".mlp.gate.", "gates"),
    (".mlp.experts.", "experts"),
    (".mlp.shared", "shared experts"),
    (".mlp.", "feed-forward"),
    ("norm", "norms"),
    ("lm_head", "output head"),
)


def _part(name: str) -> str:
    return next((part for sign, part in PARTS if sign in name), "other")


def load_theirs(model: str, device: str) -> Any:
    """The same checkpoint in transformers, in float32; code from the folder is never run."""
    try:
        import transformers
    except ImportError:
        raise MissingDependency("transformers", "dev", "`models verify`") from None
    import torch

    from groundup.base.device import choose_device
    from groundup.models.formats.formats import HuggingFaceBin, Safetensors, find_format, find_weights

    folder = find_weights(model)
    form = find_format(folder)
    if not folder.is_dir() or not isinstance(form, Safetensors | HuggingFaceBin):
        raise UsageError(
            f"transformers does not read {folder} ({form.name}): write a folder with "
            f"`groundup export hf {model} --out-dir NEW` first, and verify that"
        )
    transformers.logging.set_verbosity_error()
    options = {"local_files_only": True, "trust_remote_code": False}
    try:
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32", **options)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UsageError(f"transformers cannot load {folder}: {str(error).splitlines()[0]}") from None
    theirs.eval()
    torch.nn.Module.to(theirs, choose_device(device))
    return theirs


def compare(ours: Any, theirs: Any, prompt: list[int], new_tokens: int) -> dict[str, Any]:
    """One prompt: the largest difference of logits, and greedy text of both."""
    import torch

    x = torch.tensor([prompt], device=ours.device)
    with torch.inference_mode():
        expected = theirs(x).logits.float()
        difference = (ours(x).float() - expected).abs().max()
    text = greedy(ours, prompt, new_tokens)
    return {
        "tokens": len(prompt),
        "difference": _number(difference),
        "max_logit": _number(expected.abs().max()),
        "same_greedy": text == greedy_theirs(theirs, prompt, len(text)),
    }


def _number(value: Any) -> float:
    """A float; NaN counts as infinitely different."""
    number = float(value)
    return number if number == number else float("inf")


def published_size(config: Any) -> str | None:
    """The name of the published size that has these dimensions; None where a model is of its own size."""
    fields = (*COLUMNS.values(), "intermediate_size", "model_type", "tie_word_embeddings")
    return next((n for n, c in sizes().items() if all(_field(c, f) == _field(config, f) for f in fields)), None)


def _field(config: Any, name: str) -> Any:
    """A dimension; what is left out follows from others."""
    value = getattr(config, name, None)
    defaults = {"num_key_value_heads": config.num_attention_heads, "intermediate_size": 4 * config.hidden_size}
    return defaults.get(name) if value is None else value


def greedy_theirs(theirs: Any, prompt: list[int], count: int) -> list[int]:
    """Their most likely next tokens, each from a pass over the whole text."""
    import torch

    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(count):
            logits = theirs(torch.tensor([ids], device=theirs.device)).logits
            ids.append(int(logits[0, -1].argmax()))
    return ids[len(prompt) :]


def compare_tokenizers(model: str, tokenizer: Any) -> str:
    """Whether the ids of the probe texts are "same" or "different", or why they were not compared."""
    import transformers

    from groundup.models.formats.formats import find_weights

    if tokenizer is None:
        return "not compared: none in the folder that is read here"
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(find_weights(model), local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        return f"not compared: transformers cannot load it ({str(error).splitlines()[0]:.80})"
    texts = encoded_texts(tokenizer)
    same = all(ids == theirs.encode(text, add_special_tokens=False) for text, ids in texts.items())
    return "same" if same else "different"


def _verdict(result: dict[str, Any], relative: float, tolerance: float) -> str:
    rows = [
        [i, c["tokens"], f"{c['difference']:.3g}", f"{c['max_logit']:.4g}", "same" if c["same_greedy"] else "different"]
        for i, c in enumerate(result["prompts"], start=1)
    ]
    lines = [table(rows, ["prompt", "tokens", "largest difference", "largest logit", "greedy text"])]
    lines.append(f"tokenizer: {result['tokenizer']}")
    compared = f"largest difference {result['max_difference']:.3g}, relative {relative:.2g} (allowed {tolerance:.2g})"
    if not result["passed"]:
        return "\n".join([*lines, f"DIFFERENT from transformers: {compared}"])
    lines.append(f"equal to transformers: {compared}")
    from groundup.catalogue.rows import all_rows

    known = all_rows()
    lines += [f"confirms {row}: {known[row].title}" for row in result["confirms"] if row in known]
    if not result["confirms"]:
        lines.append(_unconfirmed(result["published_size"]))
    return "\n".join(lines)


def _unconfirmed(size: str | None) -> str:
    if size is None:
        return "it is of no published size, so it confirms no row of the catalogue"
    reason = "it does not write their known text" if size in KNOWN_TEXTS else "no text of theirs is known here"
    return f"same shape as {size}; whether these are the released weights is open ({reason}): it confirms no row"


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


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)
