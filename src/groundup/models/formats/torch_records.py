"""The tensors that a pickle of torch.save describes: where each lies in which storage, checked, and nothing built.

tensor = _rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)
storage = persistent id ("storage", FloatStorage, key, device, number of elements)
"""

from dataclasses import dataclass
from typing import Any

import torch

from groundup.base.safetensors_header import MAX_DIMENSIONS, MAX_TENSORS
from groundup.models.formats.pickle_data import Name, Unreadable

# Class of storage -> dtype. UntypedStorage counts in bytes; its tensors carry their dtype.
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
DTYPES = frozenset(
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64 "
    "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu".split()
)
STATE_DICT_KEYS = ("model", "state_dict", "model_state", "model_state_dict", "module")


@dataclass(frozen=True)
class StorageRecord:
    """A run of numbers in the file: `count` elements of `dtype` under `key`."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class TensorRecord:
    """A view of a storage: sizes and steps in elements of `dtype`."""

    storage: StorageRecord
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


def storage_record(identifier: Any) -> StorageRecord:
    """What a persistent id says."""
    if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
        raise Unreadable("a persistent id is no storage")
    kind, key, count = identifier[1], identifier[2], identifier[4]
    if len(identifier) > 5 and identifier[5] is not None:
        raise Unreadable("a storage is a view of another, as only very old files have it")
    if not isinstance(kind, Name) or not isinstance(key, str) or kind.text.rpartition(".")[2] not in STORAGES:
        raise Unreadable("a storage has no known type or key")
    return StorageRecord(key, STORAGES[kind.text.rpartition(".")[2]], size_of(count))


def tensor_record(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> TensorRecord:
    """`_rebuild_tensor` and `_rebuild_tensor_v2`: the dtype is the storage's."""
    if not isinstance(storage, StorageRecord):
        raise Unreadable("a tensor has no storage")
    return checked(storage, storage.dtype, offset, shape, strides)


def typed_tensor_record(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> TensorRecord:
    """`_rebuild_tensor_v3`: over an untyped storage, with a dtype of its own."""
    name = dtype.text.removeprefix("torch.") if isinstance(dtype, Name) else ""
    if not isinstance(storage, StorageRecord) or name not in DTYPES:
        raise Unreadable("a tensor has no storage or no known dtype")
    return checked(storage, getattr(torch, name), offset, shape, strides)


def checked(storage: StorageRecord, dtype: torch.dtype, offset: Any, shape: Any, strides: Any) -> TensorRecord:
    """The record, if the view lies within its storage and is no larger than it."""
    if not isinstance(shape, tuple) or not isinstance(strides, tuple) or len(shape) != len(strides):
        raise Unreadable("a tensor's shape and strides do not fit each other")
    if len(shape) > MAX_DIMENSIONS:
        raise Unreadable(f"a tensor has {len(shape)} dimensions")
    sizes, steps = tuple(map(size_of, shape)), tuple(map(size_of, strides))
    record = TensorRecord(storage, dtype, size_of(offset), sizes, steps)
    available = storage.nbytes // dtype.itemsize
    last = record.offset + sum((size - 1) * step for size, step in zip(sizes, steps, strict=True))
    inside = record.offset <= available if 0 in sizes else last < available and record.count <= available
    if not inside:
        raise Unreadable(
            f"a tensor of shape {list(sizes)} at {record.offset} is not within its storage of {available} elements"
        )
    return record


def size_of(value: Any) -> int:
    """A whole number from 0 to 2^63 - 1."""
    if type(value) is not int:  # its type alone is told: the text of what a stranger nested might never end
        raise Unreadable(f"a {type(value).__name__} stands for a size")
    if not 0 <= value < 2**63:
        raise Unreadable(f"{value} is not a size")
    return value


def _parameter(data: Any, *rest: Any) -> Any:
    return data


def _dict(*pairs: Any) -> dict[str, Any]:
    if pairs:
        raise Unreadable("an OrderedDict is filled in a way that torch does not use")
    return {}


def _size(*sizes: Any) -> tuple[int, ...]:
    return tuple(map(size_of, sizes[0])) if sizes else ()


# What a "call" in the pickle makes. `names` below may be mentioned but not called.
RECORDS = {
    "collections.OrderedDict": _dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": tensor_record,
    "torch._utils._rebuild_tensor_v2": tensor_record,
    "torch._utils._rebuild_tensor_v3": typed_tensor_record,
    "torch._utils._rebuild_parameter": _parameter,
}


def is_mark(name: str) -> bool:
    """Whether a global name is a class of storages or a dtype."""
    module, _, leaf = name.rpartition(".")
    return (module in ("torch", "torch.storage") and leaf in STORAGES) or (module == "torch" and leaf in DTYPES)


def state_dict(value: Any) -> dict[str, TensorRecord]:
    """The named tensors in what a file holds: on top, or one level down, under a usual key.

    What is no tensor is left out.
    """
    candidates = [value]
    if isinstance(value, dict):
        candidates += [value[key] for key in STATE_DICT_KEYS if key in value]
    for candidate in candidates:
        found = _tensors(candidate)
        if found:
            return found
    raise Unreadable(f"it holds no state dict, neither on top nor under {', '.join(STATE_DICT_KEYS)}")


def _tensors(value: Any) -> dict[str, TensorRecord]:
    if not isinstance(value, dict):
        return {}
    found = {name: item for name, item in value.items() if isinstance(item, TensorRecord) and isinstance(name, str)}
    if len(found) > MAX_TENSORS:
        raise Unreadable(f"it holds {len(found):,} tensors; more than {MAX_TENSORS:,} a file is refused")
    return found
