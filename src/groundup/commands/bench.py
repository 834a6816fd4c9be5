"""`groundup bench NAME`: us against our peers, in turn, in one run. Each benchmark is a verb with its own options."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from groundup.base.console import say, table
from groundup.base.errors import UsageError, did_you_mean
from groundup.commands.command import Command

if TYPE_CHECKING:
    from groundup.benchmarks.rounds import Comparison


class Bench(Command):
    """What every benchmark shares; a benchmark says what it measures in `measure`."""

    rounds: int = Field(default=7, ge=1)
    """Times that every case is measured, the cases taking turns; medians are shown."""

    out: Path | None = None
    """Write the results to this JSON file too, with the machine they hold for (benchmarks/results/NAME.json)."""

    def measure(self) -> "Sequence[Comparison]":
        """Do the measurements."""
        raise NotImplementedError

    def run(self) -> dict[str, Any]:
        """Measure, show a table, and return {"machine", "results"}."""
        from groundup.base.files import write_atomic

        found = self.measure()
        results = {"machine": machine(), "results": [one.as_json() for one in found]}
        say(results_table(found))
        if self.out:
            write_atomic(self.out, json.dumps(results, indent=2) + "\n")
            say(f"\nwritten to {self.out}")
        return results


class BenchStartup(Bench):
    """Time to `import groundup` and to print `groundup --help`, in fresh interpreters; the target is 0.3 s."""

    def measure(self) -> "Sequence[Comparison]":
        """Beside an empty program, `import torch` and `import transformers`."""
        from groundup.benchmarks.startup import measure

        return measure(self.rounds)


class BenchGenerate(Bench):
    """Greedy decoding of a Llama-style model of random weights, beside transformers' generate; the ids must agree."""

    rows: list[int] = Field(default=[1, 16])
    """Prompts decoded at once; each number is a case."""

    prompt: int = Field(default=32, ge=1)
    """Tokens of each prompt."""

    new: int = Field(default=64, ge=2)
    """Tokens decoded after it."""

    layers: int = Field(default=12, ge=1)
    """Blocks of the model."""

    width: int = Field(default=768, ge=64, multiple_of=64)
    """Its hidden size; heads are 64 wide, the MLP 8/3 as wide, rounded up to 64."""

    vocab: int = Field(default=32_000, ge=2)
    """Its token ids."""

    compiled: bool = True
    """Also run transformers compiled, which takes a minute or more to warm up."""

    seed: int = 0
    """Of weights and prompts."""

    threads: int | None = Field(default=None, ge=1)
    """Threads of every process; all processors when not given."""

    clock: Literal["wall", "processor"] = "wall"
    """"processor" counts the time spent computing: for one thread, on a machine that other work shares."""

    device: str = "cpu"
    """Where all compute: cpu, cuda, cuda:1, mps, or auto."""

    @model_validator(mode="after")
    def _one_thread_on_the_processors_clock(self) -> Self:
        if self.clock == "processor" and self.device != "cpu":
            raise ValueError("clock=processor does not see the time of a GPU: use it with device=cpu")
        if self.clock == "processor" and self.threads != 1:
            raise ValueError("clock=processor adds up the time of all threads: use it with threads=1")
        return self

    def measure(self) -> "Sequence[Comparison]":
        """Ours with weights in bfloat16 and float32, beside every dtype and cache of the peer."""
        from groundup.benchmarks.generate import Work, measure
        from groundup.models.configs.llama import LlamaConfig

        config = LlamaConfig(
            vocab_size=self.vocab,
            hidden_size=self.width,
            intermediate_size=-(-8 * self.width // 3 // 64) * 64,
            num_hidden_layers=self.layers,
            num_attention_heads=self.width // 64,
            max_position_embeddings=self.prompt + self.new,
        )
        device = device_of(self.device)
        work = Work(config, self.prompt, self.new, self.seed, self.threads, self.clock, device)
        found = measure(work, self.rows, self.rounds, self.compiled)
        for one in found:
            say(f"{one.case}: {memory_use(one)}")
            held = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in one.more["peak_memory"].items())
            say(f"   peak memory: {held}")
        return found


def device_of(name: str) -> str:
    """The device in the spelling of torch; `UsageError` where there is none."""
    from groundup.base.device import choose_device

    return str(choose_device(name))


def memory_use(one: "Comparison") -> str:
    """What decoding reads, and how much of the memory bandwidth that is."""
    read, speed = one.more["bytes_per_token"] / 1e6, one.more["bandwidth"] / 1e9
    return f"a step reads {read:.0f} MB; {one.more['fraction_of_bandwidth']:.0%} of the {speed:.1f} GB/s measured here"


class BenchTrain(Bench):
    """Tokens a second of our training step beside transformers' models (and nanoGPT's) in a plain PyTorch loop."""

    rounds: int = Field(default=5, ge=1)
    """Turns that every variant gets; medians are shown."""
    configs: list[str] = ["A", "B", "C", "D"]
    """What is trained: A 4x128, B 6x384 and C 12x768 as GPT-2, D 6x256 as Llama."""
    seconds: float = Field(default=5.0, ge=0)
    """Length of a turn; it has at least one update."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes all that this process may use."""
    clock: Literal["wall", "processor"] = "wall"
    """What seconds are: those of the wall, or those that the processor gave to the process, which other work on the
    machine changes less; then with one thread."""
    device: str = "cpu"
    """Where all compute: cpu, cuda, cuda:1, mps, or auto. The kernels of `training.kernels` are for CPUs alone."""
    nanogpt: Path | None = None
    """A folder with nanoGPT's model.py, which is imported from there and trained too."""
    losses: int = Field(default=0, ge=0)
    """Also train so many updates from fresh weights with every variant and show the loss at their end (100)."""
    seeds: int = Field(default=3, ge=1)
    """Seeds of these trainings."""
    compile: bool = True
    """Measure compiled variants too; compiling takes minutes."""
    bf16: bool | None = None
    """Measure bf16 variants; None does where the processor multiplies bf16 faster than fp32."""
    variants: list[str] = []
    """Only these, of all (`fp32`, `bf16+compile`); `fp32+plain` is ours without its kernels and allocator setting."""

    @model_validator(mode="after")
    def _the_processors_clock_is_for_processors(self) -> Self:
        if self.clock == "processor" and self.device != "cpu":
            raise ValueError("clock=processor does not see the time of a GPU: use it with device=cpu")
        return self

    def measure(self) -> "Sequence[Comparison]":
        """Everybody in turn, each in a process of its own."""
        from groundup.benchmarks.train import Settings, measure

        settings = Settings(
            cases=[name for text in self.configs for name in text.split(",")],
            rounds=self.rounds,
            seconds=self.seconds,
            threads=1 if self.clock == "processor" else self.threads,
            clock=self.clock,
            device=device_of(self.device),
            nanogpt=self.nanogpt,
            losses=self.losses,
            seeds=self.seeds,
            compile=self.compile,
            bf16=self.bf16,
            variants=[name for text in self.variants for name in text.split(",")],
        )
        return measure(settings)


class BenchAdapters(Bench):
    """Every way of adapting a model on one task: share that learns, memory, speed, accuracy within the distribution and
    out of it; then a LoRA step beside full fine-tuning and beside peft's.
    """

    rounds: int = Field(default=5, ge=1)
    """Turns of the step comparison."""
    methods: list[str] = []
    """Only these, by name; all when not given, none for `none`."""
    model: str = "tiny"
    """The base of the task: a folder or a name."""
    steps: int = Field(default=400, ge=1)
    """Updates of each method."""
    seeds: int = Field(default=1, ge=1)
    """Trainings of each method; the means are shown."""
    tests: int = Field(default=400, ge=1)
    """Stories that accuracy is measured on, within the distribution and out of it."""
    case: str = "E"
    """The model of the step comparison: A to E of `bench train`; empty leaves the comparison out."""
    seconds: float = Field(default=1.0, ge=0)
    """Length of a turn of the step comparison; it has at least one update."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes all that this process may use."""

    def run(self) -> dict[str, Any]:
        """Measure, show both tables, and return {"machine", "methods", "results"}."""
        from groundup.base.files import write_atomic
        from groundup.benchmarks.adapters import METHODS, Settings, measure_methods, measure_steps

        chosen = [name for text in self.methods for name in text.split(",")] or list(METHODS)
        settings = Settings(
            methods=[] if chosen == ["none"] else chosen,
            **{part: getattr(self, part) for part in ("model", "steps", "seeds", "tests", "threads", "case", "rounds")},
            seconds=self.seconds,
        )
        methods = measure_methods(settings)
        found = measure_steps(settings) if self.case else []
        if found:
            say(results_table(found))
        results = {"machine": machine(), "methods": methods, "results": [one.as_json() for one in found]}
        if self.out:
            write_atomic(self.out, json.dumps(results, indent=2) + "\n")
            say(f"\nwritten to {self.out}")
        return results


class BenchQuantization(Bench):
    """Every form of weights: bits, bytes, memory and perplexity of a model trained here; then decoding speed of one row
    beside bf16.
    """

    rounds: int = Field(default=7, ge=1)
    """Turns of the speed comparison."""
    forms: list[str] = []
    """Only these, by name; all when not given, none for `none`."""
    model: str = "tiny"
    """The model whose quality is measured: a folder or a name."""
    rows: int = Field(default=64, ge=1)
    """Rows of 256 tokens of held-out stories, and of calibration."""
    speed: list[str] = ["bf16", "int8", "int4", "nf4"]
    """The forms whose speed is measured."""
    layers: int = Field(default=12, ge=1)
    """Blocks of the model that decodes."""
    width: int = Field(default=768, ge=64, multiple_of=64)
    """Its hidden size."""
    vocab: int = Field(default=32_000, ge=2)
    """Its token ids."""
    new: int = Field(default=32, ge=2)
    """Tokens of a turn."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes all that this process may use."""

    def run(self) -> dict[str, Any]:
        """Measure, show both tables, and return {"machine", "forms", "results"}."""
        from groundup.base.files import write_atomic
        from groundup.benchmarks.quantization import FORMS, Settings, measure_forms, measure_speed

        chosen = [name for text in self.forms for name in text.split(",")] or list(FORMS)
        same = ("model", "rows", "layers", "width", "vocab", "new", "rounds", "threads")
        settings = Settings(
            forms=[] if chosen == ["none"] else chosen,
            speed=[name for text in self.speed for name in text.split(",") if name != "none"],
            **{part: getattr(self, part) for part in same},
        )
        forms = measure_forms(settings)
        found = measure_speed(settings)
        if found:
            say(results_table(found))
        results = {"machine": machine(), "forms": forms, "results": [one.as_json() for one in found]}
        if self.out:
            write_atomic(self.out, json.dumps(results, indent=2) + "\n")
            say(f"\nwritten to {self.out}")
        return results


class BenchTokenizers(Bench):
    """Byte-level BPE beside tokenizers and tiktoken: training, encoding on one thread and in batches, peak memory."""

    rounds: int = Field(default=5, ge=1)
    """Times that every case is measured, the cases taking turns; medians are shown."""
    megabytes: float = Field(default=50, gt=0)
    """Size of the corpus; what is there is repeated until it is reached."""
    encoded: float = Field(default=50, gt=0)
    """Megabytes of it that are encoded."""
    vocab_size: int = Field(default=32_000, ge=300)
    """Of the tokenizers that are trained."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of training and batches; all processors when not given."""
    shared: Path | None = None
    """The folder of real texts and vocabularies; GROUNDUP_SHARED or ../shared when not given."""
    cases: list[Literal["train", "gpt2", "trained"]] = ["train", "gpt2", "trained"]
    """Training, encoding with GPT-2's vocabulary, and with one of GPT-4's pattern that is trained here."""

    def measure(self) -> "Sequence[Comparison]":
        """Everybody in turn, each in a process of its own; merges and ids must be equal."""
        from groundup.benchmarks.tokenizers import Work, find_shared, measure

        shared = self.shared or find_shared()
        sizes = (self.megabytes, self.encoded, self.vocab_size)
        found = measure(Work(*sizes, self.threads, shared, tuple(self.cases)), self.rounds)
        for one in found:
            peaks = (f"{name} {peak:,.0f} MB" for name, peak in one.more["memory_mb"].items() if peak is not None)
            say(f"{one.case}, peak memory: {', '.join(peaks)}")
        return found


class BenchAttention(Bench):
    """Causal multi-head attention written in ten ways: all must give the same before any is timed."""

    tokens: list[int] = Field(default=[256, 1024], min_length=1)
    """Tokens of a row; each number is a case."""

    rows: int = Field(default=4, ge=1)
    """Rows of a batch."""

    width: int = Field(default=768, ge=1)
    """Features of a token."""

    heads: int = Field(default=12, ge=1)
    """Attention heads."""

    backward: bool = False
    """Measure the forward and backward pass; False: the forward pass alone."""

    implementations: list[str] = []
    """Only these, beside ours; all when not given. FlexAttention is left out unless named: it is compiled first."""

    repeats: int = Field(default=3, ge=1)
    """Calls in a measurement."""

    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes all that this process may use."""

    seed: int = 0
    """Of weights and input."""

    device: str = "cpu"
    """Where all compute: cpu, cuda, cuda:1, mps, or auto."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and input."""

    def measure(self) -> "Sequence[Comparison]":
        """Every way, in turn, for each number of tokens."""
        import torch

        from groundup.base.device import choose_dtype
        from groundup.benchmarks.attention import Work, measure
        from groundup.benchmarks.attention_cases import IMPLEMENTATIONS, OURS

        if self.threads:
            torch.set_num_threads(self.threads)
        ways = [name for text in self.implementations for name in text.split(",")]
        ways = ways or [name for name in IMPLEMENTATIONS if name != "FlexAttention"]
        where = (torch.device(device_of(self.device)), choose_dtype(self.dtype), self.seed)
        found = []
        for tokens in self.tokens:
            shape = (self.rows, tokens, self.width, self.heads, self.backward, self.repeats)
            found += measure(Work(*shape, *where), ways, self.rounds)
        for one in found:
            times = ", ".join(f"{name} {time:.3g} ms" for name, time in one.theirs_variants.items())
            share = f"{one.more['fraction_of_peak']:.0%} of the speed of a large product measured here"
            say(f"{one.case}: {OURS} {one.ours:.3g} ms, {share}; {times}")
        return found


class BenchFamilies(Bench):
    """Training and decoding of every family at equal size, beside transformers where it has the family."""

    families: list[str] = []
    """Which; all when not given: `llama,mixtral,rwkv7`."""
    rounds: int = Field(default=9, ge=1)
    """Turns that everybody gets; medians are shown, of rates and of the turns' ratios."""
    seconds: float = Field(default=0.5, ge=0)
    """Length of a training turn; it has at least one update."""
    layers: int = Field(default=6, ge=1)
    """Blocks."""
    width: int = Field(default=256, ge=32)
    """Width of the residual stream."""
    heads: int = Field(default=8, ge=1)
    """Query heads."""
    context: int = Field(default=256, ge=8)
    """Tokens of a training row."""
    batch: int = Field(default=8, ge=1)
    """Rows of an update."""
    vocabulary: int = Field(default=2048, ge=64)
    """Token ids."""
    parameters: int = Field(default=6_000_000, gt=0)
    """Of each model: the feed-forward network is as wide as it takes."""
    new: int = Field(default=64, ge=2)
    """Tokens decoded."""
    work: list[Literal["training", "decoding"]] = ["training", "decoding"]
    """What to measure."""
    compile: bool = False
    """Compiled variants take part in training too; compiling takes minutes."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of every process; all processors when not given."""
    device: str = "cpu"
    """Where all compute: cpu, cuda, cuda:1, mps, or auto."""

    def measure(self) -> "Sequence[Comparison]":
        """One family after the other; contenders take turns."""
        from groundup.benchmarks.families import Work, measure
        from groundup.benchmarks.family_shapes import Size, trainable_families

        known = trainable_families()
        chosen = [name for text in self.families for name in text.split(",")] or known
        for name in chosen:
            if name not in known:
                raise UsageError(f"no family `{name}`.{did_you_mean(name, known)} One of: {', '.join(known)}")
        size = Size(self.layers, self.width, self.heads, self.context, self.vocabulary, self.parameters)
        return measure(
            Work(
                tuple(chosen),
                size,
                batch=self.batch,
                rounds=self.rounds,
                seconds=self.seconds,
                new=self.new,
                threads=self.threads,
                training="training" in self.work,
                decoding="decoding" in self.work,
                compile=self.compile,
                device=device_of(self.device),
            )
        )


def results_table(found: "Sequence[Comparison]") -> str:
    """The comparisons as text."""
    rows = [
        [one.case, one.peer, figure(one.ours), figure(one.theirs), f"{one.ratio:.2f}x", one.unit, verdict(one)]
        for one in found
    ]
    return table(rows, ["case", "peer", "ours", "theirs", "ratio", "unit", "target"])


def figure(value: float) -> str:
    """Three significant digits, thousands set apart."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def verdict(one: "Comparison") -> str:
    """The target, and whether it was met."""
    if one.met is None:
        return one.target
    return f"{one.target}: {'met' if one.met else 'missed'}"


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    import os
    import platform
    from importlib.metadata import version

    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": platform.platform(terse=True),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def processor() -> str:
    """The processor's name, as the system tells it."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
