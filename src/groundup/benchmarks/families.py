"""`groundup bench families`: what each architecture costs at equal size, and how our code stands beside transformers'.

Training and greedy decoding, each contender in a process of its own, taking turns: short ones (an update, a row) and
many, whose ratios are taken turn by turn, because a shared machine changes its speed within seconds. A family that
transformers does not know is measured alone; all are set against our Llama of the same size too.
"""

import functools
import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from groundup.base.console import say, table, warn
from groundup.base.errors import GroundupError, UsageError
from groundup.benchmarks import generate
from groundup.benchmarks.family_shapes import Size, equal_size
from groundup.benchmarks.rounds import Comparison, compare, in_turn
from groundup.benchmarks.train import Settings, Trainee, starts
from groundup.benchmarks.train_cases import FamilyCase

PEER = "transformers"
TARGET = 1.5
BASE = "llama"
PROMPT = 16


@dataclass(frozen=True)
class Work:
    """What is measured.

    Attributes:
        families: model types.
        size: of all of them.
        batch: rows of a training update.
        rounds, seconds: turns, and their length.
        new: tokens decoded.
        threads: of each process.
        training, decoding: whether to measure these.
        compile: whether compiled variants take part in training.
    """

    families: tuple[str, ...]
    size: Size
    batch: int = 8
    rounds: int = 9
    seconds: float = 0.5
    new: int = 64
    threads: int | None = None
    training: bool = True
    decoding: bool = True
    compile: bool = False
    device: str = "cpu"


def measure(work: Work) -> list[Comparison]:
    """All families; one that fails is named and left out, and Ctrl-C keeps those that are done."""
    found: list[Comparison] = []
    try:
        for name in work.families:
            for one in of_family(name, work):
                found.append(one)
                say(line(one))
    except KeyboardInterrupt:
        if not found:
            raise
        warn(f"stopped; kept are the measurements that were done: {len(found)}")
    if not found:
        raise UsageError("no family could be measured; the reasons stand above")
    found = [against_base(one, found) for one in found]
    say("\n" + summary(found))
    return found


def of_family(name: str, work: Work) -> Iterator[Comparison]:
    """What is to be measured of one family, as far as it can be."""
    try:
        case = FamilyCase.make(name, work.size, work.batch)
        known = transformers_knows(name)
        for what in (training,) * work.training + (decoding,) * work.decoding:
            yield what(case, work, known)
    except GroundupError as error:
        warn(f"{name} is left out: {error}")


def transformers_knows(model_type: str) -> bool:
    """Whether the peer has a causal language model of that type."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def training(case: FamilyCase, work: Work, known: bool) -> Comparison:
    """Tokens a second of a whole update."""
    say(f"\n{case.title}: training")
    settings = Settings([case.name], work.rounds, work.seconds, threads=work.threads, device=work.device, peak=False)
    variants = ["fp32", *["fp32+compile"] * work.compile]
    with ExitStack() as stack:
        everyone = [("groundup", v) for v in variants] + [(PEER, v) for v in variants if known]
        trainees = [stack.enter_context(Trainee(case, who, variant, settings)) for who, variant in everyone]
        working = [trainee for trainee in trainees if starts(trainee)]
        turns = {trainee.name: functools.partial(trainee.round, work.seconds) for trainee in working}
        measured = in_turn(turns, work.rounds, warmup=0)
    memory = {one.name: max(result["memory"] for result in one.results) for one in working}
    return result(case, "training", measured, {"peak_memory": memory})


def decoding(case: FamilyCase, work: Work, known: bool) -> Comparison:
    """New tokens a second, greedily, one row; and what a state of the whole context takes."""
    say(f"\n{case.title}: decoding")
    room = replace(work.size, context=max(work.size.context, PROMPT + work.new))
    job = generate.Work(equal_size(case.family, room), PROMPT, work.new, threads=work.threads, device=work.device)  # type: ignore[arg-type]
    names = ["ours float32", *[f"{PEER} float32 dynamic", f"{PEER} float32 static"] * known]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        generate.write_folder(job, folder)
        workers = {name: stack.enter_context(generate.start(name, folder, job)) for name in names}
        turns: dict[str, Callable[[], float]] = {}
        for name, worker in workers.items():
            try:
                worker.ask(prompts=job.prompts(1), new=2)
            except GroundupError as error:
                if name.startswith("ours"):
                    raise
                warn(f"left out: {error}")
                continue
            turns[name] = functools.partial(generate.tokens_per_second, worker, job, 1)
        measured = in_turn(turns, work.rounds)
    return result(case, "decoding", {_renamed(name): values for name, values in measured.items()}, state_bytes(case))


def _renamed(name: str) -> str:
    return name.replace("ours", "groundup", 1)


def state_bytes(case: FamilyCase) -> dict[str, Any]:
    """Bytes that a state holds after half of the context and after all of it, by running without data."""
    from groundup.models.architecture.trace import outline

    drawn = outline(case.config())
    return {"state_bytes_per_token": drawn.state_bytes, "constant_state_bytes": drawn.constant_state_bytes}


def result(case: FamilyCase, what: str, measured: dict[str, list[float]], more: dict[str, Any]) -> Comparison:
    """Our best variant beside their best."""
    ours = {name: values for name, values in measured.items() if name.startswith("groundup")}
    theirs = {name: values for name, values in measured.items() if name.startswith(PEER)}
    if not ours:
        raise UsageError(f"no variant of ours could run the {what} of {case.family}")
    best = max(ours, key=lambda name: statistics.median(ours[name]))
    more = {
        **{"family": case.family, "what": what, "parameters": case.parameters, "ours_variant": best},
        "ours_variants": {name: statistics.median(values) for name, values in ours.items()},
        **more,
    }
    title = f"{case.family}, {what}"
    if not theirs:
        mine = statistics.median(ours[best])
        spread = (max(ours[best]) - min(ours[best])) / mine
        return Comparison(title, "none", mine, 0.0, 0.0, "tokens/s", "-", {}, spread, more=more)
    found = compare(title, PEER, ours[best], theirs, "tokens/s", higher_is_better=True, more=more)
    return replace(found, target=f"{TARGET:g}x", met=found.ratio >= TARGET)


def against_base(one: Comparison, all_of_them: list[Comparison]) -> Comparison:
    """With the ratio to our own Llama at the same work."""
    for base in all_of_them:
        if base.more["family"] == BASE and base.more["what"] == one.more["what"]:
            return replace(one, more={**one.more, "ratio_to_llama": one.ours / base.ours})
    return one


def line(one: Comparison) -> str:
    """One measurement in words, shown as soon as it is there."""
    beside = f", {PEER} {one.theirs:,.0f}: {ratio(one)}" if one.peer == PEER else ""
    return f"{one.case}: {one.ours:,.0f} tokens/s ({one.more['ours_variant']}){beside}"


def ratio(one: Comparison) -> str:
    """`1.12x (1.08 to 1.15)`: the median of the turns' ratios and their quartiles."""
    low, high = one.ratios
    return f"{one.ratio:.2f}x ({low:.2f} to {high:.2f})"


def summary(found: list[Comparison]) -> str:
    """All families in one table."""
    return table(
        list(_rows(found)), ["family", "parameters", "work", "ours", PEER, "ratio (quartiles)", "of our llama"]
    )


def _rows(found: list[Comparison]) -> Iterator[list[str]]:
    for one in found:
        theirs = (f"{one.theirs:,.0f}", ratio(one)) if one.peer == PEER else ("-", "-")
        base = one.more.get("ratio_to_llama")
        yield [
            *(one.more["family"], f"{one.more['parameters']:,}", one.more["what"], f"{one.ours:,.0f}", *theirs),
            "-" if base is None else f"{base:.2f}",
        ]
