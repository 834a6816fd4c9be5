"""The command line: a table of verbs, and the way from flags and YAML to a command.

    groundup VERB [PART] [FILE.yaml] [--key value] [--section.key value]

Flags are laid over the YAML file, which is laid over the defaults. Only the verb that was asked for is imported.
"""

import contextlib
import importlib
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from groundup import __version__
from groundup.base.errors import GroundupError, UsageError, did_you_mean
from groundup.base.threads import share_the_processors

if TYPE_CHECKING:
    from groundup.commands.command import Command

VERBS: dict[str, tuple[str, str]] = {
    "quickstart": ("quickstart:Quickstart", "From text to a trained, measured, saved, talking model in minutes"),
    "train": ("train:Train", "Train a model from a recipe: `groundup train recipes/NAME.yaml`"),
    "tokenizer train": ("tokenizer:TokenizerTrain", "Learn a vocabulary from text"),
    "tokenizer steps": ("tokenizer_steps:TokenizerSteps", "Byte-pair encoding, merge by merge, for learning"),
    "tokenizer encode": ("tokenizer:TokenizerEncode", "Text to token ids"),
    "tokenizer decode": ("tokenizer:TokenizerDecode", "Token ids to text"),
    "tokenizer inspect": ("tokenizer_look:TokenizerInspect", "What a tokenizer holds; one token's history"),
    "tokenizer compare": (
        "tokenizer_look:TokenizerCompare",
        "Several tokenizers on one text: length, speed, agreement",
    ),
    "tokenizer convert": ("tokenizer_change:TokenizerConvert", "Other files, where nothing gets lost"),
    "tokenizer extend": ("tokenizer_change:TokenizerExtend", "More tokens, and rows for them in the model"),
    "tokenizer chat": ("tokenizer_chat:TokenizerChat", "A conversation as text, ids and loss mask, by a chat template"),
    "data inspect": ("data:DataInspect", "What a file or folder of text holds"),
    "data validate": ("data:DataValidate", "Check every record; name the file and line of what is wrong"),
    "data prepare": ("data:DataPrepare", "Tokenize text into memory-mapped shards"),
    "generate": ("generate:Generate", "Continue a prompt"),
    "chat": ("chat:Chat", "Talk with a model in the terminal"),
    "evaluate": ("evaluate:Evaluate", "Perplexity, bits per byte, cloze and multiple-choice accuracy"),
    "entropy": ("entropy:Entropy", "How many bits a letter of a text holds: by blocks, by words, under a model"),
    "shannon": ("entropy:Shannon", "The Shannon game: guess a text letter by letter, you or a model"),
    "correct": ("correct:Correct", "Spelling by the noisy channel: argmax P(words) P(typed | words)"),
    "probe": ("probe:Probe", "What each layer of a frozen model knows, by a small classifier"),
    "export gguf": ("export_gguf:ExportGGUF", "Write a model and its tokenizer as a file that llama.cpp runs"),
    "export hf": ("export:ExportHF", "Write a complete Hugging Face folder"),
    "export rwkv": ("export:ExportRWKV", "Write an RWKV model as a .pth file in its authors' layout"),
    "export weights": ("export:ExportWeights", "Write the tensors alone, as .pth or safetensors"),
    "merge": ("merge:Merge", "Take adapters into a model's weights"),
    "quantize": ("quantize:Quantize", "Store a model's weights in fewer bits"),
    "models list": ("models_list:ModelsList", "The families and sizes that can be built or loaded"),
    "models show": ("models_show:ModelsShow", "A model's facts, architecture, parameters and tensors"),
    "models walk": ("models_walk:ModelsWalk", "A text through a Llama, tensor by tensor"),
    "models diff": ("models_diff:ModelsDiff", "What changed from one model to another"),
    "models verify": ("models_verify:ModelsVerify", "Compare a checkpoint with transformers: logits and greedy text"),
    "numbers": ("numbers:Numbers", "Number formats from fp32 to mxfp4: range, spacing, what each makes of a number"),
    "runs list": ("runs:RunsList", "Training runs on this machine"),
    "runs show": ("runs:RunsShow", "One run's settings, curve and samples"),
    "runs compare": ("runs_compare:RunsCompare", "Several runs as one table: size, speed, memory, loss"),
    "estimate params": ("estimate:EstimateParams", "Parameters of a model, part by part"),
    "estimate memory": ("estimate:EstimateMemory", "Memory of training or inference"),
    "estimate flops": ("estimate:EstimateFlops", "Floating-point operations of training or inference"),
    "bench adapters": ("bench:BenchAdapters", "Measure every way of adapting a model on one task, and beside peft"),
    "bench attention": (
        "bench:BenchAttention",
        "Measure attention written in ten ways, after checking that they agree",
    ),
    "bench startup": ("bench:BenchStartup", "Measure the start: import and --help, beside our peers"),
    "bench families": ("bench:BenchFamilies", "Measure every model family at equal size, beside transformers"),
    "bench generate": ("bench:BenchGenerate", "Measure decoding beside transformers: one row, and several at once"),
    "bench quantization": ("bench:BenchQuantization", "Measure every form of weights: bits, quality, speed"),
    "bench tokenizers": ("bench:BenchTokenizers", "Measure tokenizers: training and encoding, beside our peers"),
    "bench train": ("bench:BenchTrain", "Measure training: tokens a second, beside our peers"),
    "catalogue": ("catalogue:Catalogue", "Every technique, and the test that proves it"),
    "doctor": ("doctor:Doctor", "Check this machine and installation"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line; the return value is the exit code. One rank of several ends its process here."""
    if argv is None and os.environ.get("WORLD_SIZE", "") not in ("", "1"):
        _leave(_exit_code_of_rank())
    return _main(argv)


def _exit_code_of_rank() -> int:
    try:
        return _main(None)
    except SystemExit as exit:  # a training that a signal stopped
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
        return exit.code if isinstance(exit.code, int) else 1 if exit.code else 0
    except Exception:
        traceback.print_exc()
        return 1


def _leave(code: int) -> NoReturn:
    """End this process at once.

    gloo's threads may outlive the process group; if one still runs while the interpreter takes itself down, about one
    process in five dies with SIGABRT ("terminate called without an active exception"), and torchrun calls a training
    that is done failed. Everything is on the disk by now, so nothing is lost by leaving without that last step.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads
            stream.flush()
    os._exit(code)


def _main(argv: list[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    share_the_processors()
    try:
        return _run(words)
    except GroundupError as error:
        print(f"groundup: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141
    except OSError as error:
        if error.filename is None:  # nothing that the user named
            raise
        print(f"groundup: {str(error.filename)[:200]}: {(error.strerror or 'cannot be used').lower()}", file=sys.stderr)
        return 1


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if words[0] in ("-V", "--version", "version"):
        print(f"groundup {__version__}")
        return 0

    verb, rest = find_verb(words)
    if rest is None:
        print(overview(prefix=verb))
        return 0

    # Imported here because it loads pydantic-settings, which `groundup --help` need not wait for.
    from groundup.base.console import json_output
    from groundup.commands.parse import parse

    command = parse(load_command(verb), verb, rest)
    with json_output(command.as_json):
        result = command.run()
    if command.as_json and result is not None:
        print(json.dumps(_plain(result), ensure_ascii=False, indent=2))
    return command.exit_code(result)


def find_verb(words: list[str]) -> tuple[str, list[str] | None]:
    """The verb that the words begin with, and what follows it; None follows a group named alone (`tokenizer`)."""
    for size in (2, 1):
        verb = " ".join(words[:size])
        if len(words) >= size and verb in VERBS:
            return verb, words[size:]
    group = words[0]
    parts = [verb.split()[1] for verb in VERBS if verb.startswith(group + " ")]
    if parts:
        if len(words) == 1 or words[1] in ("-h", "--help"):
            return group, None
        raise UsageError(
            f"`{group} {words[1]}` is not a command.{did_you_mean(words[1], parts)} One of: {', '.join(parts)}"
        )
    raise UsageError(
        f"`{group}` is not a command.{did_you_mean(group, (v.split()[0] for v in VERBS))} See groundup --help"
    )


def load_command(verb: str) -> "type[Command]":
    """The Config class behind a verb."""
    module, _, name = VERBS[verb][0].partition(":")
    return getattr(importlib.import_module(f"groundup.commands.{module}"), name)


def overview(prefix: str = "") -> str:
    """The table of verbs."""
    shown = {verb: line for verb, (_, line) in VERBS.items() if not prefix or verb.startswith(prefix + " ")}
    width = max(map(len, shown))
    lines = [f"  {verb:<{width}}  {line}" for verb, line in shown.items()]
    head = "groundup: every part of a large model, from raw text to a measured assistant\n"
    usage = "usage: groundup VERB [options]\n"
    foot = "\n`groundup VERB --help` tells a verb's options. Start with `groundup quickstart`."
    return "\n".join([head, usage, *lines, foot])


def _plain(value: Any) -> Any:
    """Configs and other pydantic objects as JSON-able values."""
    from pydantic_core import to_jsonable_python

    return to_jsonable_python(value)
