"""An adapter as a folder: adapter_config.json and adapter_model.safetensors, in peft's form where peft knows the kind.

    save_adapter(model, "legal/")            peft.PeftModel.from_pretrained(base, "legal/") loads it
    load_adapter(model, "theirs/", "legal")  what peft wrote, and what groundup wrote

How a kind takes part. A kind that peft has sets on its Config:

    peft_type: ClassVar[str] = "IA3"                       what peft calls it: the file's kind is found by it
    def to_peft(self, model, name) -> InPeft               values, tensors and notes of the adapter `name` of a model;
                                                           raise NoPeftForm(why) for what peft cannot hold
    def from_peft(cls, model, given: FromPeft) -> Loaded   config, a Plan whose parts hold their weights, its version of
                                                           the base's tensors; raise CheckpointError for what does
                                                           not fit; the model is left as it is

`files` itself adds `peft_type` and the base's name, refuses tensors that are not finite, writes atomically and reads
safely. What helps: `Names` (names.py) for names through the family's weight map, `Given` below for a file's settings
and tensors of which none may be left unread.

A kind that peft lacks needs nothing: its settings (`model_dump`) and its tensors go into the same two files under our
own names, {"groundup": {settings}}, `blocks.0.mlp.adapters.down.weight`, `prompt.vectors`. `Config.plan` makes the
parts again and the tensors are copied in; names and shapes must be exactly those.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from groundup.adapters import adapter_hub
from groundup.adapters.attach import Adapters, adapters_of
from groundup.adapters.config import FromPeft, InPeft, Loaded
from groundup.adapters.configs import AdapterConfig  # from here, so that every kind is known
from groundup.adapters.names import NoPeftForm
from groundup.base.config import members
from groundup.base.console import warn
from groundup.base.errors import CheckpointError, UsageError, did_you_mean
from groundup.base.files import atomic_folder, read_json
from groundup.base.folders import write_json
from groundup.models.hub import mismatches

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OWN = "groundup"


def save_adapter(model: Any, folder: str | Path, name: str = "default", *, base: str | None = None) -> None:
    """Write one adapter of a model.

    Args:
        model: with the adapter on it.
        folder: new, empty, or with an adapter in it, which is replaced once the new one is whole.
        name: which adapter.
        base: folder or hub name of the base; where it was loaded from when None.

    Raises:
        UsageError: no such adapter, one that is merged, or a folder that holds something else.
    """
    adapters, folder = adapters_of(model), Path(folder)
    _can_be_saved(adapters, folder, name)
    config = adapters.configs[name]
    try:
        if not config.peft_type:
            raise NoPeftForm(f"peft has no {getattr(config, 'kind', 'such')} adapters")
        written = config.to_peft(model, name)
        written.values = {"peft_type": config.peft_type} | written.values
    except NoPeftForm as reason:
        if config.peft_type:
            warn(f"{folder}: in groundup's own layout, which peft does not read: {reason}")
        written = _to_own(adapters, name)
    written.values["base_model_name_or_path"] = base or getattr(model, "name_or_path", None)
    _refuse_infinite(written.tensors, f"adapter `{name}`", "train it again with a lower learning rate")
    notes = written.notes | {"family": model.config.family()} if hasattr(model, "config") else written.notes
    tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in written.tensors.items()}
    with atomic_folder(folder, replace=True) as temporary:
        write_json(temporary / CONFIG, written.values)
        save_file(tensors, temporary / WEIGHTS, {"format": "pt", OWN: json.dumps(notes)})


def _can_be_saved(adapters: Adapters, folder: Path, name: str) -> None:
    adapters.check_known(name)
    if name in adapters.merged:
        raise UsageError(f"`{name}` is merged into the weights: unmerge it, or write the model itself (`merged`)")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG).is_file():
        raise UsageError(f"{folder} holds something else than an adapter: choose a new folder")


def _to_own(adapters: Adapters, name: str) -> InPeft:
    config = adapters.configs[name]
    values = {"peft_type": None, OWN: config.model_dump(mode="json")}
    return InPeft(values, {_own_name(key, name): tensor for key, tensor in adapters.tensors(name).items()})


def _own_name(key: str, name: str) -> str:
    """Without the adapter's name, which is chosen when it is loaded."""
    return key.replace(f".adapters.{name}.", ".adapters.").replace(f"prompt.{name}.", "prompt.", 1)


# -- reading ----------------------------------------------------------------------------------------------------------


def load_adapter(model: Any, folder: str | Path, name: str | None = None, *, trainable: bool = False) -> Adapters:
    """Put the adapter of a folder on a model and let it act. The model changes only when everything fits.

    Args:
        model: the base that it was made for.
        folder: with adapter_config.json and adapter_model.safetensors, ours or peft's; or of the `adapters` library.
        name: what to call it; "default" when None, or as the `adapters` library calls it.
        trainable: whether it goes on learning.

    Raises:
        CheckpointError: what is missing, unexpected, of another shape, not finite, or for another model, by name.
        UsageError: the name is taken.
    """
    if adapter_hub.is_from_hub(Path(folder)):
        return adapter_hub.load_adapter(model, folder, name, trainable=trainable)
    adapters, name = adapters_of(model), name or "default"
    given = read_adapter(folder, name)
    _same_family(model, given)
    if OWN in given.values:
        loaded = _from_own(model, given)
    else:
        kind = kind_of(given)
        try:
            loaded = kind.from_peft(model, given)
        except NoPeftForm as reason:
            raise CheckpointError(f"{given.folder} cannot be put on this model: {reason}") from None
    adapters.add(name, loaded.config, loaded.plan, trainable)
    known = dict(model.named_parameters())
    with torch.no_grad():
        for key, tensor in loaded.base.items():
            known[key].copy_(tensor)
    return adapters


def read_adapter(folder: str | Path, name: str = "default") -> FromPeft:
    """The settings and tensors of an adapter's folder, checked by themselves."""
    folder = Path(folder)
    values = read_json(folder / CONFIG)
    if not isinstance(values, dict):
        raise CheckpointError(f"{folder / CONFIG} must hold an object of settings")
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = " It has adapter_model.bin, a pickle, which can run any code: convert it with peft first."
        raise CheckpointError(f"{folder} lacks {WEIGHTS}.{pickled * (folder / 'adapter_model.bin').exists()}")
    try:
        with safe_open(path, framework="pt") as file:
            notes = (file.metadata() or {}).get(OWN, "{}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut off ({error}): copy or download it again") from None
    _refuse_infinite(tensors, str(path), "it is broken, take another copy or another checkpoint")
    return FromPeft(values, tensors, _parsed(notes, path), folder, name)


def _parsed(notes: str, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(notes)
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: the note in its header is not what groundup writes: copy it again")
    return found


def _refuse_infinite(tensors: dict[str, Tensor], where: str, then: str) -> None:
    bad = [key for key, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise CheckpointError(f"{where}: {bad[0]} and {len(bad) - 1} others hold NaN or infinity: {then}")


def _same_family(model: Any, given: FromPeft) -> None:
    family = given.notes.get("family")
    if family is not None and hasattr(model, "config") and family != model.config.family():
        base = given.values.get("base_model_name_or_path")
        raise CheckpointError(
            f"{given.folder} was made for a {family} model{f' ({base})' if base else ''}, this is a "
            f"{model.config.family()}: load that one"
        )


def _kinds() -> list[type[AdapterConfig]]:
    return list(members(AdapterConfig))  # type: ignore[arg-type]


def kind_of(given: FromPeft) -> type[AdapterConfig]:
    """The kind that a folder in peft's form holds."""
    kinds: dict[str, Any] = {kind.peft_type: kind for kind in _kinds() if kind.peft_type}
    named = given.values.get("peft_type")
    if named not in kinds:
        raise CheckpointError(
            f"{given.folder} holds an adapter of kind {named!r}, which is not known here. "
            f"Known: {', '.join(sorted(kinds))}"
        )
    return kinds[named]


def _from_own(model: Any, given: FromPeft) -> Loaded:
    own = given.values[OWN]
    kinds = {kind.model_fields["kind"].default: kind for kind in _kinds()}
    named = own.get("kind") if isinstance(own, dict) else None
    if named not in kinds:
        raise CheckpointError(
            f"{given.folder} holds an adapter of kind {named!r}.{did_you_mean(str(named), kinds)} "
            f"Known: {', '.join(sorted(kinds))}"
        )
    unknown = sorted(given.values.keys() - {"peft_type", "base_model_name_or_path", OWN})
    if unknown:
        raise CheckpointError(f"{given.folder / CONFIG}: {', '.join(unknown)} is not known here: remove it")
    try:
        config = kinds[named].parse(own, where=str(given.folder / CONFIG))
        with torch.random.fork_rng(devices=[]):
            plan = config.plan(model, given.name)
    except UsageError as error:
        raise CheckpointError(f"{given.folder} does not fit this model: {error}") from None
    places = {
        f"{where}.adapters.{key}": tensor
        for where, part in plan.parts.items()
        for key, tensor in part.state_dict().items()
    }
    if plan.prompt is not None:
        places |= {f"prompt.{key}": tensor for key, tensor in plan.prompt.state_dict().items()}
    known = dict(model.named_parameters())
    shapes = {key: tuple(tensor.shape) for key, tensor in places.items()}
    shapes |= {key: tuple(known[key].shape) for key in plan.tensors}
    compare(shapes, given.tensors, given.folder)
    for key, tensor in places.items():
        tensor.copy_(given.tensors[key])
    return Loaded(config, plan, {key: given.tensors[key] for key in plan.tensors})


def compare(wanted: dict[str, tuple[int, ...]], given: dict[str, Tensor], folder: Path) -> None:
    """Raise unless exactly these tensors are given, in these shapes."""
    if lines := mismatches(wanted, {key: tuple(tensor.shape) for key, tensor in given.items()}):
        head = f"{folder} does not fit this model: take the base that it was made for, or a whole copy of the folder"
        raise CheckpointError("\n".join([head, *lines]))


class Given:
    """A file's settings, of which none may be left that would change something and was not read.

    Args:
        given: what was read.

    `take(key, default)` gives a setting; `done()` refuses those that were never taken and are not off.
    """

    def __init__(self, given: FromPeft):
        self._values, self.folder = dict(given.values), given.folder
        self._known: set[str] = set()
        for key in ("peft_type", "base_model_name_or_path", "task_type", "auto_mapping", "peft_version", "revision"):
            self.take(key)
        self.take("inference_mode")

    def take(self, key: str, default: Any = None) -> Any:
        """A setting, or the default where the file lacks it."""
        self._known.add(key)
        value = self._values.pop(key, None)
        return default if value is None else value

    def ignore(self, keys: Iterable[str]) -> None:
        """Settings that count for training with peft alone."""
        for key in keys:
            self.take(key)

    def done(self) -> None:
        """Raise for what is left: a setting that is None, false, or empty changes nothing."""
        left = {key: value for key, value in self._values.items() if value not in (None, False, "", [], {})}
        if left:
            key, value = next(iter(left.items()))
            raise CheckpointError(
                f"{self.folder / CONFIG}: `{key}`: {json.dumps(value)[:60]} is not known here."
                f"{did_you_mean(key, self._known)}{f' And {len(left) - 1} more.' if len(left) > 1 else ''} Without it "
                "the adapter would be another: remove it only if you know that it does not count"
            )
