"""What recurrent models of any family must do with padding on the right."""

import torch
from torch.testing import assert_close

from families.tiny import ids


def assert_rows_go_on_from_their_last_token(model):
    """Rows padded on the right, then more tokens with padding anywhere: each as if it stood alone."""
    x, more = ids(rows=3, length=9), ids(rows=3, length=4, seed=2)
    documents = (torch.arange(9) < torch.tensor([[9], [5], [1]])).long()
    second = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1]])
    state = model.make_state(3, 16)
    with torch.no_grad():
        first, then = model(x, documents=documents, state=state), model(more, documents=second, state=state)
        for row, count in enumerate((9, 5, 1)):
            real = second[row].bool()
            alone = model(torch.cat((x[row, :count], more[row, real]))[None])[0]
            assert_close(first[row, :count], alone[:count])
            assert_close(then[row, real], alone[count:])
