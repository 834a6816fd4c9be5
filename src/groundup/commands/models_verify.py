"""`groundup models verify`: whether a checkpoint is right."""

from typing import Any

from pydantic import Field
from pydantic_settings import CliPositionalArg

from groundup.base.console import progress, say, table
from groundup.base.errors import GroundupError, MissingDependency, UsageError
from groundup.commands.command import Command
from groundup.commands.comparing import NEW_TOKENS, encoded_texts, greedy, probe_prompts
from groundup.commands.models_list import COLUMNS
from groundup.commands.named_model import tokenizer_beside
from groundup.models.cards import cards
from groundup.models.catalogue import sizes

# What the released weights of a size are known to write, greedily: (prompt, continuation). Random weights have the same
# shape, so a size that is not here is never confirmed.
KNOWN_TEXTS = {
    # Raschka 2024, chapter 6
    "gpt2": ("Every effort moves you", " forward.\n\nThe first step is to understand the importance of your work"),
    # the public tensor-by-tensor notebook of Llama 3: token 2983 comes next
    "llama-3-8b": ("the answer to the ultimate question of life, the universe, and everything is ", "42"),
}
# Sizes whose text begins with a token that says so.
BEGINS_WITH_BOS = {"llama-3-8b"}


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
        result["confirms"] = rows_of(size) if size and known else []
        say(_verdict(result, relative, self.tolerance))
        return result

    def exit_code(self, result: Any) -> int:
        """1 when something differed."""
        return 0 if result["passed"] else 1


def rows_of(size: str) -> list[str]:
    """The rows of the catalogue that a published size belongs to."""
    return next((list(card.rows) for card in cards().values() if size in {s.name for s in card.sizes}), [])


def writes_known_text(size: str | None, model: Any, tokenizer: Any) -> bool:
    """Whether the model continues a prompt as the released weights of that size are known to."""
    if size not in KNOWN_TEXTS or tokenizer is None:
        return False
    try:
        prompt, continuation = (tokenizer.encode(text) for text in KNOWN_TEXTS[size])
    except GroundupError:  # a vocabulary that lacks some of the characters
        return False
    if size in BEGINS_WITH_BOS:
        prompt = [tokenizer.bos_id, *prompt]
    return greedy(model, prompt, len(continuation)) == continuation


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
