"""Operations of a weight map on quantized matrices: those that only move rows (outputs)."""

from groundup.weights import Chain, Fused, FusedHeads, Operation, Same, Transpose, WithinHeads


def in_rows(operation: Operation) -> Operation:
    """The operation for matrices that are (out, in) in the file whatever the family's other files do."""
    if isinstance(operation, Transpose):
        return Same()
    if isinstance(operation, Chain):
        return Chain(*(in_rows(each) for each in operation.operations))
    return operation


def moves_rows(operation: Operation) -> bool:
    """Whether the operation, after `in_rows`, leaves every row as it is."""
    if isinstance(operation, Chain):
        return all(moves_rows(each) for each in operation.operations)
    if isinstance(operation, Fused):
        return operation.dim == 0
    return isinstance(operation, Same | FusedHeads | WithinHeads)


def is_same(operation: Operation) -> bool:
    """Whether the operation, after `in_rows`, changes nothing."""
    if isinstance(operation, Chain):
        return all(is_same(each) for each in operation.operations)
    return isinstance(operation, Same)
