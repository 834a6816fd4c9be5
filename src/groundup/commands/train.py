"""`groundup train RECIPE.yaml`: from data and settings to a trained model in a run folder."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from groundup.base.config import one_of
from groundup.base.console import say
from groundup.base.errors import UsageError
from groundup.commands.command import Command
from groundup.commands.parse import merge
from groundup.data.config import DataConfig
from groundup.models.catalogue import any_config
from groundup.models.configs.llama import LlamaConfig
from groundup.tokenizers.registry import AnyTokenizer, ByteBPEConfig
from groundup.training.config import TrainingConfig
from groundup.training.expected import Expected
from groundup.training.objectives.config import LanguageModelingConfig, ObjectiveConfig
from groundup.training.presets import CONTEXT, preset

if TYPE_CHECKING:  # for a type checker the members of a union are their base
    from groundup.adapters.config import AdapterConfig as AnyAdapter
    from groundup.data.load import Data
    from groundup.estimates.memory import TrainingMemory
    from groundup.models.configs.base import ModelConfig as AnyModel
    from groundup.quantization.config import QuantizationConfig as AnyQuantization
    from groundup.tokenizers.registry import TokenizerConfig as TokenizerChoice
    from groundup.tokenizers.tokenizer import Tokenizer
    from groundup.training.callbacks.callback import Callback
    from groundup.training.objectives.config import ObjectiveConfig as AnyObjective
    from groundup.training.run import Run
else:
    from groundup.adapters.configs import AnyAdapter
    from groundup.quantization.configs import AnyQuantization

    TokenizerChoice, AnyObjective, AnyModel = AnyTokenizer, one_of(ObjectiveConfig), any_config()


# Of a dry run without a tokenizer: characters of each source that are shown, and that a vocabulary is reckoned from.
SHOWN_TEXT, SAMPLED_TEXT = 200, 1_000_000


@dataclass(frozen=True)
class PlannedTokenizer:
    """What a model's shape needs to know of a tokenizer that is not trained yet."""

    vocab_size: int
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None

    def id(self, token: str) -> int | None:
        """Ids of single tokens are not known yet."""
        return None


class Train(Command):
    """Train a model: from nothing (`model`) or from a checkpoint (`init_from`), on `data`, towards `objective`."""

    preset: str | None = None
    """A published recipe to begin with: gpt3-125M to gpt3-175B, llama1-7B to llama1-65B. It gives model, context,
    optimizer, schedule, batch and length; what else is given stands above it."""
    model: AnyModel = LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    """Shape of a new model. Its vocabulary is the tokenizer's and its longest context that of the data, unless
    given."""
    init_from: str | None = None
    """Folder or hub name of the weights to begin with, in place of new ones."""
    adapter: AnyAdapter | None = None
    """What learns in place of the weights of `init_from`: `--adapter.kind lora --adapter.rank 16`. The run's final/ is
    then the adapter alone."""
    adapter_name: str = "default"
    """What the adapter is called, beside others that `init_from` may have."""
    quantization: AnyQuantization | None = None
    """Store the frozen weights below the adapter in fewer bits: `--quantization.kind nf4` (QLoRA)."""
    tokenizer: TokenizerChoice = ByteBPEConfig()
    """The tokenizer to train on the training documents."""
    tokenizer_from: str | None = None
    """Folder or name of a tokenizer to use in place of training one; with `init_from` its own is the default."""
    data: DataConfig = DataConfig()
    """What to train on."""
    objective: AnyObjective = LanguageModelingConfig()
    """What the loss is."""
    training: TrainingConfig = TrainingConfig(steps=1000)
    """How to train."""
    expected: Expected | None = None
    """Where the validation loss of this recipe ends; the command says whether it did."""
    evaluate_batches: int | None = Field(default=50, ge=1)
    """Batches of held-out rows of each source in an evaluation; None takes all."""
    prompts: list[str] = [""]
    """Texts that are continued while training; an empty one begins from nothing."""
    sample_tokens: int = Field(default=100, ge=1)
    """Length of these samples, as far as the model's context allows."""
    tensorboard: bool = False
    """Also write TensorBoard files."""

    out_dir: Path | None = None
    """The run folder (training.out_dir)."""
    seed: int | None = None
    """Of everything random (training.seed)."""
    resume: str | None = None
    """auto, none or a path (training.resume)."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    dtype: Literal["fp32", "bf16", "fp16"] | None = None
    """Number format (training.precision.dtype)."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes all that this process may use."""
    dry_run: bool = False
    """Print the settings, the size, the memory and the first batch, and end. No tokenizer is trained for that: where
    one would be, the size is reckoned with its vocab_size, and the first texts are shown in place of the batch."""

    @model_validator(mode="before")
    @classmethod
    def _a_budget_follows_the_training(cls, values: Any) -> Any:
        """AdaLoRA's budget shrinks over the steps of the training, where no other number is given."""
        adapter = values.get("adapter") if isinstance(values, Mapping) else None
        if not isinstance(adapter, Mapping) or adapter.get("kind") != "adalora" or "steps" in adapter:
            return values
        training = values.get("training")
        given = training.get("steps") if isinstance(training, Mapping) else getattr(training, "steps", None)
        return values if given is None else {**values, "adapter": {**adapter, "steps": given}}

    @model_validator(mode="before")
    @classmethod
    def _lay_over_the_preset(cls, values: Any) -> Any:
        """What was given, laid over the preset's settings."""
        if not isinstance(values, Mapping) or not values.get("preset"):
            return values
        data = values.get("data")
        context = data.get("context_length") if isinstance(data, Mapping) else getattr(data, "context_length", None)
        return merge(preset(str(values["preset"]), int(context or CONTEXT)), values)

    @model_validator(mode="after")
    def _adapters_need_a_base(self) -> Train:
        if self.adapter is not None and self.init_from is None:
            raise ValueError("an adapter goes on a finished model: name it with --init_from (init_from: tiny)")
        if self.quantization is not None and self.adapter is None and self.quantization.frozen:
            raise ValueError(
                "weights in fewer bits do not learn by themselves: put an adapter on them (--adapter.kind lora)"
            )
        return self

    def run(self) -> Any:
        """Train; the run's summary."""
        self._check_sources()
        settings = self.resolved()
        settings.check_out_dir()
        from groundup.base.allocator import give_freed_memory_back, keep_freed_memory

        # before torch allocates; a base in few bits is for those who lack memory more than time
        (keep_freed_memory if settings.quantization is None else give_freed_memory_back)()
        from groundup.base.device import choose_device
        from groundup.base.threads import set_threads

        set_threads(self.threads)
        device = choose_device(self.device)
        if self.dry_run and settings.trains_tokenizer():
            return settings.describe_untrained(device)
        tokenizer = settings.make_tokenizer()
        data = settings.load_data(tokenizer)
        model = settings.make_model(tokenizer, device)
        if self.dry_run:
            return settings.describe(model, tokenizer, data)
        return settings.count(model, tokenizer, data) if model.config.counted else settings.fit(model, tokenizer, data)

    def resolved(self) -> Train:
        """The top-level shortcuts put where they belong, so that config.yaml says everything once."""
        given = {name: getattr(self, name) for name in ("out_dir", "seed", "resume") if getattr(self, name) is not None}
        if self.dtype is not None:
            given["precision"] = self.training.precision.model_copy(update={"dtype": self.dtype})
        training = self.training.model_copy(update=given)
        return self.model_copy(
            update={"training": training, "out_dir": None, "seed": None, "resume": None, "dtype": None}
        )

    def _check_sources(self) -> None:
        for source in self.data.source:
            looks_like_path = "/" in source or Path(source).suffix
            if looks_like_path and not Path(source).exists():
                raise UsageError(f"no data at {source}: get the file, or name another with --data.source PATH")

    def check_out_dir(self) -> None:
        """Refuse a run folder that cannot be written, before anything is read or learnt."""
        from groundup.base.files import check_writable
        from groundup.training.run import Run

        if _first_rank():
            check_writable(self.training.out_dir or Run.new_path())

    # -- the parts ----------------------------------------------------------------------------------------------------

    def trains_tokenizer(self) -> bool:
        """Whether a tokenizer has to be trained: none is named, and the run folder keeps none."""
        return (self.tokenizer_from or self.init_from) is None and self._kept_tokenizer() is None

    def make_tokenizer(self) -> Tokenizer:
        """Load the tokenizer, or train it on the training documents; the run folder keeps it for a resume."""
        from groundup.tokenizers.hub import load_tokenizer

        name = self.tokenizer_from or self.init_from
        if name is not None:
            return load_tokenizer(name)
        kept = self._kept_tokenizer()
        if kept is not None:
            return load_tokenizer(kept)
        say("training the tokenizer")
        tokenizer = self.tokenizer.train(self._training_texts())
        if self.training.out_dir is not None and not self.dry_run and _first_rank():
            tokenizer.save_pretrained(self.training.out_dir / "tokenizer")
        return tokenizer

    def _kept_tokenizer(self) -> Path | None:
        """The tokenizer that this run trained before it was interrupted, if the settings that made it are the same."""
        from groundup.training.run import Run

        if self.training.out_dir is None or not (self.training.out_dir / "tokenizer/tokenizer.json").is_file():
            return None
        run = Run(self.training.out_dir)
        saved = run.config if run.config_path.is_file() else {}
        now = self.model_dump(mode="json", include={"tokenizer", "data"})
        same = all(saved.get(name) == now[name] for name in now)
        return self.training.out_dir / "tokenizer" if same else None

    def _training_texts(self) -> Iterator[str]:
        return itertools.chain.from_iterable(map(self._texts_of, self.data.source))

    def _texts_of(self, source: str) -> Iterator[str]:
        from groundup.data.load import read_source
        from groundup.data.split import split_documents

        documents = read_source(source, self.data, self.data.seed)
        for part, document, _ in split_documents(documents, self.data.split):
            if part == "train":
                yield document.text

    def load_data(self, tokenizer: Tokenizer) -> Data:
        """Tokenize, split and pack."""
        from groundup.data.load import load_data

        return load_data(self.data, tokenizer)  # pyright: ignore[reportArgumentType]  # its vocab_size is a property

    def make_model(self, tokenizer: Tokenizer | PlannedTokenizer, device: Any) -> Any:
        """A new model, the same for the same seed; or the weights of `init_from`."""
        import torch

        from groundup.models.hub import build_model

        if self.init_from is not None:
            model = self._load_base(device)
            if model.config.vocab_size < tokenizer.vocab_size:
                raise UsageError(
                    f"the tokenizer has {tokenizer.vocab_size:,} tokens, {self.init_from} "
                    f"only {model.config.vocab_size:,}"
                )
            return self._adapted(model)
        torch.manual_seed(self.training.seed)
        model = build_model(self.model_config_for(tokenizer)).to(device)
        model.learn_vocabulary(tokenizer)
        return model

    def _load_base(self, device: Any) -> Any:
        """The weights of `init_from`, in fewer bits where that is asked for: of a plain checkpoint tensor by tensor, so
        that the model is never in memory as it was.
        """
        from groundup.models.hub import load_model, loader_elsewhere

        assert self.init_from is not None
        if self.quantization is None:
            return load_model(self.init_from, device=device)
        from groundup.quantization.exchange import described, quantize
        from groundup.quantization.streaming import load_quantized

        plain = loader_elsewhere(Path(self.init_from).expanduser()) is None
        if plain and self.quantization.frozen and not self.quantization.calibrated:
            model = load_quantized(self.init_from, self.quantization, device=device)
        else:
            model = load_model(self.init_from, device=device)
            quantize(model, self.quantization)
        say(f"quantized: {described(model)}")
        return model

    def _adapted(self, model: Any) -> Any:
        """The model with an adapter that learns on it."""
        import torch

        from groundup.adapters.attach import adapters_of

        adapters = adapters_of(model)
        if self.adapter is not None:
            before = list(adapters.configs)
            torch.manual_seed(self.training.seed)
            adapters.add(self.adapter_name, self.adapter)
            adapters.activate(*before, self.adapter_name)
        elif adapters.configs:  # go on with those of the folder
            adapters.train_only(*adapters.configs)
        if adapters.configs:
            say(adapters.report())
        return model

    def model_config_for(self, tokenizer: Tokenizer | PlannedTokenizer) -> Any:
        """The model's shape with what tokenizer and data decide."""
        given = self.model.model_fields_set if self.model is not type(self).model_fields["model"].default else set()
        decided: dict[str, Any] = {}
        if "vocab_size" not in given:
            decided["vocab_size"] = tokenizer.vocab_size
        elif self.model.vocab_size < tokenizer.vocab_size:
            raise UsageError(
                f"model.vocab_size {self.model.vocab_size} is below the tokenizer's {tokenizer.vocab_size}"
            )
        if "max_position_embeddings" not in given and self.model.max_position_embeddings is not None:
            decided["max_position_embeddings"] = self.data.context_length
        decided |= {name: id for name, id in marks_of(self.model, tokenizer).items() if name not in given}
        special = {f"{part}_token_id": getattr(tokenizer, f"{part}_id") for part in ("bos", "eos", "pad")}
        decided["kept"] = {**self.model.kept, **{name: id for name, id in special.items() if id is not None}}
        return self.model.model_copy(update=decided)

    # -- what is done with them ---------------------------------------------------------------------------------------

    def describe(self, model: Any, tokenizer: Tokenizer, data: Data) -> dict[str, Any]:
        """Print the resolved settings, parameters, memory estimate and the first batch as text."""
        batch = next(data.loader(self.training.batch_size))
        texts = [tokenizer.decode(ids) for ids in batch["ids"][:4].tolist()]
        facts = self._describe_sizes(model)
        for number, text in enumerate(texts):
            say(f"row {number}: {text!r}")
        return facts | {"first_batch": texts}

    def describe_untrained(self, device: Any) -> dict[str, Any]:
        """As `describe` where the tokenizer is still to be trained: it is not, and the first texts are shown."""
        planned, exact = self._planned_tokenizer()
        texts = [next(self._texts_of(source), "")[:SHOWN_TEXT] for source in self.data.source]
        facts = self._describe_sizes(self.make_model(planned, device))
        kind, sources = getattr(self.tokenizer, "kind", "?"), ", ".join(self.data.source)
        size = f"{planned.vocab_size:,} ids" + ("" if exact else f" for the first {SAMPLED_TEXT:,} characters alone")
        say(f"tokenizer: `{kind}` would be trained first, on {sources}; the figures above are for {size}")
        for source, text in zip(self.data.source, texts, strict=True):
            say(f"{source} begins: {text!r}")
        tokenizer = {"kind": kind, "trained": False, "vocab_size": planned.vocab_size, "exact": exact}
        return facts | {"tokenizer": tokenizer, "first_batch": None, "first_texts": texts}

    def _planned_tokenizer(self) -> tuple[PlannedTokenizer, bool]:
        """What can be said of the tokenizer beforehand, and whether its size is the one that was asked for.

        Kinds that take every character or word of the text have no size until then: theirs is that of a sample.
        """
        wanted = getattr(self.tokenizer, "vocab_size", None)
        if wanted is not None:
            return PlannedTokenizer(wanted), True
        sample = self.tokenizer.train(_beginning(self._training_texts(), SAMPLED_TEXT))
        return PlannedTokenizer(sample.vocab_size, sample.bos_id, sample.eos_id, sample.pad_id), False

    def _describe_sizes(self, model: Any) -> dict[str, Any]:
        memory = self.memory(model)
        say(self.to_yaml())
        say(f"parameters: {model.num_parameters():,}")
        say(self._told_memory(memory))
        return {
            "config": self.model_dump(mode="json"),
            "parameters": model.num_parameters(),
            "memory_bytes": memory.total,
        }

    def memory(self, model: Any) -> TrainingMemory:
        """The estimate of one rank's memory: weights, gradients, optimizer, moving average, activations."""
        from groundup.estimates.memory import training_memory

        training, precision = self.training, self.training.precision.resolved(model.device.type)
        return training_memory(
            model.config,
            batch=self._rows_at_a_time(),
            seq_len=self.data.context_length,
            dtype=precision.dtype if precision.weights == "copies" else "fp32",
            optimizer=state_of(training.optimizer),
            recompute="full" if training.activation_checkpointing else "none",
            average=training.ema is not None,
            adapter=self.adapter,
            quantization=self.quantization,
        )

    def _rows_at_a_time(self) -> int:
        share = -(-self.training.batch_size // _environment("WORLD_SIZE", 1))
        return min(self.training.micro_batch_size or share, share)

    def _told_memory(self, memory: TrainingMemory) -> str:
        return f"memory, about: {memory.total / 1e6:,.0f} MB with {self._rows_at_a_time()} rows at a time"

    def fit(self, model: Any, tokenizer: Tokenizer, data: Data) -> dict[str, Any]:
        """The loop with evaluation, samples and the final folder; the run's summary."""
        from groundup.training.loop import fit

        objective = self.objective.build_for(model, tokenizer)
        loader = data.loader(
            self.training.batch_size, rank=_environment("RANK", 0), world_size=_environment("WORLD_SIZE", 1)
        )
        learning = model.num_parameters(trainable=True)
        of_all = f" of {model.num_parameters():,}" if learning < model.num_parameters() else ""
        say(f"training {learning:,}{of_all} parameters on {told(data)}")
        say(self._told_memory(self.memory(model)))
        run = fit(
            model,
            objective,
            loader,
            self.training,
            self._callbacks(objective, tokenizer, data),
            tokenizer=tokenizer,
            settings=self,
        )
        return self._ended(run)

    def count(self, model: Any, tokenizer: Tokenizer, data: Data) -> dict[str, Any]:
        """The training of a family that learns by counting; the run's summary."""
        from groundup.pages.run_report import write_report
        from groundup.training.counting import count

        if self.init_from is not None:
            raise UsageError(
                f"a model of counts is made from all of its text at once: {self.init_from} has no say in it"
            )
        say(f"counting {told(data)}")
        sample = _sampler(tokenizer, self.sample_tokens)
        run = count(
            model.config, data, self.training, tokenizer=tokenizer, settings=self, sample=sample, prompts=self.prompts
        )
        write_report(run.path)
        return self._ended(run)

    def _ended(self, run: Run) -> dict[str, Any]:
        """Say where the run is, and whether it came out as the recipe expects; its summary."""
        say(f"done: {run.path}; try `groundup generate {run.final}`")
        summary = run.summary()
        if self.expected is not None and summary["validation_loss"] is not None:
            say(told_verdict(self.expected, summary))
        return summary | {"path": str(run.path)}

    def _callbacks(self, objective: Any, tokenizer: Tokenizer, data: Data) -> list[Callback]:
        from groundup.pages.run_report import write_report
        from groundup.training.callbacks.evaluate import Evaluate
        from groundup.training.callbacks.final import SaveFinal
        from groundup.training.callbacks.report import Report
        from groundup.training.callbacks.sample import Sample
        from groundup.training.callbacks.tensorboard import TensorBoard
        from groundup.training.held_out import HeldOut

        callbacks: list[Callback] = []
        if data.validation:
            rows = self.training.micro_batch_size or self.training.batch_size
            callbacks.append(Evaluate(HeldOut(data.validation, objective, rows, self.evaluate_batches)))
        if self.prompts:
            callbacks.append(Sample(_sampler(tokenizer, self.sample_tokens), self.prompts))
        if self.tensorboard:
            callbacks.append(TensorBoard())
        return [*callbacks, SaveFinal(), Report(lambda run: write_report(run.path))]


def _beginning(texts: Iterable[str], size: int) -> Iterator[str]:
    """The first texts, until so many characters have come; the last one is cut."""
    for text in texts:
        yield text[:size]
        size -= len(text)
        if size <= 0:
            return


def marks_of(model: AnyModel, tokenizer: Tokenizer | PlannedTokenizer) -> dict[str, int]:
    """The ids of tokens that the family looks for in a text, as far as the tokenizer has them."""
    return {
        name: id
        for name, spellings in model.marks.items()
        for spelling in reversed(spellings)
        if (id := tokenizer.id(spelling)) is not None
    }


def state_of(optimizer: Any) -> str:
    """What the memory estimate calls an optimizer: momentum is state, and plain SGD keeps none."""
    with_momentum = optimizer.kind == "sgd" and optimizer.momentum > 0
    with_momentum |= optimizer.kind == "adafactor" and optimizer.beta1 is not None
    return f"{optimizer.kind}-momentum" if with_momentum else optimizer.kind


def told(data: Data) -> str:
    """What is trained on, in words."""
    parts = []
    for source, sizes in data.summary().items():
        train, held_out = sizes["train"], sizes["validation"]["tokens"]
        documents = f"{train['documents']:,} document{'s' * (train['documents'] != 1)}"
        parts.append(f"{source}: {documents}, {train['tokens']:,} tokens ({held_out:,} held out)")
    return "; ".join(parts)


def told_verdict(expected: Expected, summary: Mapping[str, Any]) -> str:
    """Whether a run ended as its recipe expects, in words."""
    loss, verdict = float(summary["validation_loss"]), summary["verdict"]
    if verdict is None:
        return (
            f"validation loss {loss:.3f} after {summary['step']:,} steps: the expected {expected.told()} is for "
            f"{expected.steps:,} steps"
        )
    if verdict == "within":
        return f"validation loss {loss:.3f}: within the expected {expected.told()}"
    return f"validation loss {loss:.3f}: NOT as expected, {verdict} {expected.told()}"


def _sampler(tokenizer: Tokenizer, length: int):
    def sample(model: Any, prompts: Sequence[str]) -> list[str]:
        from groundup.generation.blanks import blank_prompt, fills_blanks
        from groundup.generation.generate import context_limit, encode_prompts, generate

        given = (
            encode_prompts(tokenizer, list(prompts))
            if not fills_blanks(model, tokenizer)
            else [blank_prompt(model, tokenizer, prompt) for prompt in prompts]
        )
        longest = max(1, *map(len, given))
        room = (context_limit(model) or length + longest) - longest
        done = generate(model, tokenizer, given, max_new_tokens=min(length, room), temperature=0.8, seed=0)
        return [completion.text for completion in done]

    return sample


def _environment(name: str, default: int) -> int:
    return int(os.environ.get(name, default))


def _first_rank() -> bool:
    return _environment("RANK", 0) == 0
