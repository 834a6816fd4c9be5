"""`groundup generate`: continue prompts."""

import sys
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import json_output, say
from groundup.base.errors import DataError, UsageError
from groundup.commands.command import Command
from groundup.commands.named_model import model_and_tokenizer
from groundup.generation.config import SamplingConfig, sources


class Generate(Command, SamplingConfig):
    """Continue prompts with a model; stderr and --json tell the settings in force and where each came from."""

    model: CliPositionalArg[str]
    """A model folder, that of a run or of an adapter, a .gguf file, or a name (`tiny`)."""
    prompts: CliPositionalArg[list[str]] = Field(default_factory=list)
    """Texts to continue; without any the model begins one. A GLM fills their [MASK], [sMASK] and [gMASK]."""
    file: Path | None = None
    """A text file with one prompt a line, besides those given."""
    suffix: str | None = None
    """What follows a gap after each prompt: the model fills the gap (Code Llama, StarCoder)."""
    suffix_first: bool = False
    """Show the model the suffix before the prompt."""
    samples: int = Field(default=1, ge=1)
    """Completions a prompt."""
    batch_size: int = Field(default=32, ge=1)
    """Most rows at once."""
    bos: bool | None = None
    """Begin each prompt with the tokenizer's begin-of-text token; where its files say so when not given."""
    logprobs: bool = False
    """Give each token's log-probability in --json."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""
    dtype: str | None = None
    """float32, bfloat16 or float16; as stored when not given."""

    def run(self) -> dict[str, Any]:
        """Print prompt and continuation; `--json` holds all completions and the settings in force."""
        prompts = [*self.prompts, *(read_prompts(self.file) if self.file else [])] or [""]
        model, tokenizer = model_and_tokenizer(self.model, self.dtype, self.device)
        config = sampling_of(self)
        with json_output():  # on stderr also where stdout is for people: it holds the text alone
            say(describe(self))
        from groundup.generation.blanks import fills_blanks

        if self.suffix is None and fills_blanks(model, tokenizer):
            return self._fill(model, tokenizer, prompts, config)
        if self.suffix is not None:
            return self._infill(model, tokenizer, prompts, config)
        if sys.stdout.isatty() and not self.as_json and len(prompts) == self.samples == 1:
            return self._stream(model, tokenizer, prompts[0], config)
        return self._generate(model, tokenizer, prompts, config)

    def _stream(self, model: Any, tokenizer: Any, prompt: str, config: SamplingConfig) -> dict[str, Any]:
        from groundup.generation.generate import stream

        write(prompt)
        for piece in stream(model, tokenizer, prompt, config, bos=self.bos):
            write(piece)
        write("\n")
        return {}

    def _infill(self, model: Any, tokenizer: Any, prompts: list[str], config: SamplingConfig) -> dict[str, Any]:
        from groundup.generation.infilling import infill

        suffix, options = self.suffix or "", {"samples": self.samples, "batch_size": self.batch_size}
        gaps = [(prompt, suffix) for prompt in prompts]
        results = infill(
            model, tokenizer, gaps, config, suffix_first=self.suffix_first, logprobs=self.logprobs, **options
        )
        completions = []
        for i, result in enumerate(results):
            prompt = prompts[i // self.samples]
            completions.append({"prompt": prompt, "suffix": suffix, **vars(result)})
            if not self.as_json:
                say(prompt + result.text + suffix + ("\n" if len(results) > 1 else ""))
        return {"model": self.model, "sampling": settings(self), "completions": completions}

    def _fill(self, model: Any, tokenizer: Any, prompts: list[str], config: SamplingConfig) -> dict[str, Any]:
        from groundup.generation.blanks import fill_blanks

        texts = [prompt for prompt in prompts for _ in range(self.samples)]
        results = fill_blanks(model, tokenizer, texts, config, batch_size=self.batch_size, logprobs=self.logprobs)
        completions = []
        for prompt, result in zip(texts, results, strict=True):
            blanks = [vars(blank) for blank in result.blanks]
            completions.append({"prompt": prompt, "text": result.text, "blanks": blanks})
            if not self.as_json:
                say(result.text + ("\n" if len(results) > 1 else ""))
        return {"model": self.model, "sampling": settings(self), "completions": completions}

    def _generate(self, model: Any, tokenizer: Any, prompts: list[str], config: SamplingConfig) -> dict[str, Any]:
        from groundup.generation.generate import generate

        options = {"samples": self.samples, "batch_size": self.batch_size, "logprobs": self.logprobs, "bos": self.bos}
        results = generate(model, tokenizer, prompts, config, **options)
        completions = []
        for i, result in enumerate(results):
            prompt = prompts[i // self.samples]
            completions.append({"prompt": prompt, **vars(result)})
            if not self.as_json:
                say(prompt + result.text + ("\n" if len(results) > 1 else ""))
        return {"model": self.model, "sampling": settings(self), "completions": completions}


def sampling_of(command: SamplingConfig) -> SamplingConfig:
    """The sampling settings among a command's settings."""
    return SamplingConfig(**{name: getattr(command, name) for name in SamplingConfig.model_fields})


def settings(command: SamplingConfig) -> dict[str, dict[str, Any]]:
    """Each sampling setting: its value, and whether it was given or is the default. Infinities are text, for JSON."""
    found = sources(command)
    values = sampling_of(command).model_dump()
    values["logit_bias"] = {k: v if abs(v) < float("inf") else str(v) for k, v in values["logit_bias"].items()}
    return {name: {"value": values[name], "source": found[name]} for name in found}


def describe(command: SamplingConfig) -> str:
    """The settings in force on one line: those given, then the defaults."""
    found = settings(command)
    texts = {
        kind: ", ".join(f"{name}={item['value']}" for name, item in found.items() if item["source"] == kind)
        for kind in ("given", "default")
    }
    return f"sampling: given: {texts['given'] or 'nothing'}; default: {texts['default']}"


def read_prompts(path: Path) -> list[str]:
    """The lines of a file that are not empty."""
    if not path.is_file():
        raise UsageError(f"no file of prompts at {path}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text (byte {error.start}): convert it first") from None
    prompts = [line.rstrip("\r") for line in lines if line.strip()]
    if not prompts:
        raise DataError(f"{path} holds no prompts")
    return prompts


def write(piece: str) -> None:
    """A piece of text on stdout, at once and without a line end."""
    sys.stdout.write(piece)
    sys.stdout.flush()
