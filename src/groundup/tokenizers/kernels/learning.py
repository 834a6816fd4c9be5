"""Learning merges from counted words: the algorithm of `training.byte_bpe.Learner` over arrays.

Words lie one behind the other in `symbols`. A pair has a number for good; `table` finds it. A heap entry is (count,
pair, list of words); the lists share one array of links. Nothing grows while the kernel runs but the number of pairs,
and it stops before these can run out.
"""

from typing import Any

import numba

from groundup.tokenizers.kernels.hashing import COMPILED, FREE, pair_key, piece_key, place_of, same

# Places in `used`.
PAIRS, LINKS, HEAP, TOKENS, BYTES, MERGES = 0, 1, 2, 3, 4, 5
NOTHING, MORE_ROOM, ENOUGH = 0, 1, 2  # why `learn` returns
NONE = -1


@numba.njit(**COMPILED)
def pair_number(left: int, right: int, keys: Any, numbers: Any, pairs: Any, counts: Any, heads: Any, used: Any) -> int:
    """The number of a pair; a new one gets the next."""
    key = pair_key(left, right)
    place = place_of(key, len(keys))
    while keys[place] != FREE:
        if keys[place] == key:
            return numbers[place]
        place = (place + 1) & (len(keys) - 1)
    number = used[PAIRS]
    used[PAIRS] += 1
    keys[place], numbers[place] = key, number
    pairs[number, 0], pairs[number, 1] = left, right
    counts[number], heads[number] = 0, NONE
    return number


@numba.njit(**COMPILED)
def note(pair: int, word: int, heads: Any, links: Any, touched: Any, changed: int, used: Any) -> int:
    """Put a word on the pair's list of this step, once; returns how many pairs have been touched."""
    head = heads[pair]
    if head == NONE:
        touched[changed] = pair
        changed += 1
    elif links[head, 0] == word:
        return changed
    links[used[LINKS], 0], links[used[LINKS], 1] = word, head
    heads[pair] = used[LINKS]
    used[LINKS] += 1
    return changed


@numba.njit(**COMPILED)
def before(a: Any, b: Any, pairs: Any) -> bool:
    """Whether heap entry a comes before b: the greater count, then the smaller ids."""
    if a[0] != b[0]:
        return a[0] > b[0]
    if pairs[a[1], 0] != pairs[b[1], 0]:
        return pairs[a[1], 0] < pairs[b[1], 0]
    return pairs[a[1], 1] < pairs[b[1], 1]


@numba.njit(**COMPILED)
def push(heap: Any, count: int, pair: int, head: int, pairs: Any, used: Any) -> None:
    """Add an entry."""
    place = used[HEAP]
    used[HEAP] += 1
    heap[place, 0], heap[place, 1], heap[place, 2] = count, pair, head
    while place > 0:
        above = (place - 1) >> 1
        if not before(heap[place], heap[above], pairs):
            break
        swap(heap, place, above)
        place = above


@numba.njit(**COMPILED)
def sink(heap: Any, pairs: Any, used: Any) -> None:
    """Let the first entry, which has changed, fall to where it belongs."""
    place, size = 0, used[HEAP]
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and before(heap[below + 1], heap[below], pairs):
            below += 1
        if not before(heap[below], heap[place], pairs):
            break
        swap(heap, place, below)
        place = below


@numba.njit(**COMPILED)
def swap(heap: Any, a: int, b: int) -> None:
    """Exchange two entries."""
    for i in range(3):
        heap[a, i], heap[b, i] = heap[b, i], heap[a, i]


@numba.njit(**COMPILED)
def push_touched(heap: Any, touched: Any, changed: int, pairs: Any, counts: Any, heads: Any, used: Any) -> None:
    """An entry for every pair of this step that still occurs; its list is then closed."""
    for i in range(changed):
        pair = touched[i]
        if counts[pair] > 0:
            push(heap, counts[pair], pair, heads[pair], pairs, used)
        heads[pair] = NONE


@numba.njit(**COMPILED)
def count_pairs(
    symbols: Any,
    word_starts: Any,
    word_ends: Any,
    word_counts: Any,
    keys: Any,
    numbers: Any,
    pairs: Any,
    counts: Any,
    heads: Any,
    links: Any,
    touched: Any,
    heap: Any,
    used: Any,
) -> None:
    """Count the pairs of all words and fill the heap. Symbols are bytes here, so there are at most 2^16 pairs."""
    changed = 0
    for word in range(len(word_starts)):
        for i in range(word_starts[word], word_ends[word] - 1):
            pair = pair_number(symbols[i], symbols[i + 1], keys, numbers, pairs, counts, heads, used)
            counts[pair] += word_counts[word]
            changed = note(pair, word, heads, links, touched, changed, used)
    push_touched(heap, touched, changed, pairs, counts, heads, used)


@numba.njit(**COMPILED)
def full(keys: Any, pairs: Any, used: Any, more: int) -> bool:
    """Whether there might be no room for `more` new pairs."""
    return used[PAIRS] + more >= len(pairs) or 2 * (used[PAIRS] + more) >= len(keys)


@numba.njit(**COMPILED)
def new_token(left: int, right: int, keys: Any, tokens: Any, spelled: Any, starts: Any, used: Any) -> int:
    """The place in the table of the token that left + right spell, or the free one; spelled behind the last token."""
    at = used[BYTES]
    for token in (left, right):
        for i in range(starts[token], starts[token + 1]):
            spelled[at] = spelled[i]
            at += 1
    place = place_of(piece_key(spelled, used[BYTES], at), len(keys))
    while keys[place] != FREE:
        token = tokens[place]
        first = starts[token]
        if starts[token + 1] - first == at - used[BYTES] and same(spelled, used[BYTES], at, spelled, first):
            break
        place = (place + 1) & (len(keys) - 1)
    return place


@numba.njit(**COMPILED)
def merge_words(
    words: Any,
    left: int,
    right: int,
    new: int,
    head: int,
    keys: Any,
    numbers: Any,
    pairs: Any,
    counts: Any,
    heads: Any,
    links: Any,
    touched: Any,
    used: Any,
) -> int:
    """Replace the pair in all words of the list `head`, from left to right, and book the neighbours' pairs.

    The merged pair's own count is left as it is: it has left the heap. Returns how many pairs have been touched.
    """
    symbols, word_starts, word_ends, word_counts = words
    changed = 0
    while head != NONE:
        word, head = links[head, 0], links[head, 1]
        times, first, end = word_counts[word], word_starts[word], word_ends[word]
        read, write = first, first
        while read < end:
            symbol = symbols[read]
            if symbol != left or read + 1 >= end or symbols[read + 1] != right:
                symbols[write] = symbol
                read += 1
                write += 1
                continue
            if write > first:
                near = symbols[write - 1]
                counts[pair_number(near, left, keys, numbers, pairs, counts, heads, used)] -= times
                made = pair_number(near, new, keys, numbers, pairs, counts, heads, used)
                counts[made] += times
                changed = note(made, word, heads, links, touched, changed, used)
            if read + 2 < end:
                near = symbols[read + 2]
                counts[pair_number(right, near, keys, numbers, pairs, counts, heads, used)] -= times
                made = pair_number(new, near, keys, numbers, pairs, counts, heads, used)
                counts[made] += times
                changed = note(made, word, heads, links, touched, changed, used)
            symbols[write] = new
            write += 1
            read += 2
        word_ends[word] = write
    return changed


@numba.njit(**COMPILED)
def learn(
    symbols: Any,
    word_starts: Any,
    word_ends: Any,
    word_counts: Any,
    keys: Any,
    numbers: Any,
    pairs: Any,
    counts: Any,
    heads: Any,
    links: Any,
    touched: Any,
    heap: Any,
    used: Any,
    token_keys: Any,
    tokens: Any,
    spelled: Any,
    starts: Any,
    control: int,
    least: int,
    vocab_size: int,
    merges: Any,
    steps: int,
) -> int:
    """Learn up to `steps` merges; returns why it stopped: `NOTHING` to merge, `MORE_ROOM` needed, `ENOUGH`.

    Args:
        symbols: int32, the ids of all words.
        word_starts: int64, where each word begins.
        word_ends: int64, where each ends, which changes.
        word_counts: int64, how often each occurs.
        keys: uint64, with `numbers` the table of pairs.
        numbers: int32.
        pairs: int32 (P, 2), the ids of each pair.
        counts: int64, how often each pair occurs.
        heads: int32, the newest link of each pair's open list.
        links: int32 (L, 2), word and next link.
        touched: int32, room for the pairs of a step.
        heap: int64 (H, 3), count, pair and first link.
        used: int64, how far the arrays are filled.
        token_keys: uint64, with `tokens` the table of tokens by their bytes.
        tokens: int32.
        spelled: uint8, the tokens' bytes.
        starts: int64, where each token begins.
        control: tokens below are control tokens, which no merge may make.
        least: a pair seen less often is not merged.
        vocab_size: tokens wanted.
        merges: int32 (M, 3), filled with left, right, merged.
        steps: how many to learn at most.
    """
    done = 0
    while done < steps and used[TOKENS] < vocab_size:
        if used[HEAP] == 0:
            return NOTHING
        if used[MERGES] == len(merges) or full(keys, pairs, used, 2 * used[TOKENS] + 2):
            return MORE_ROOM
        pair, head = heap[0, 1], heap[0, 2]
        if counts[pair] != heap[0, 0]:
            heap[0, 0] = counts[pair]
            sink(heap, pairs, used)
            continue
        if counts[pair] < least:
            return NOTHING
        left, right = pairs[pair]
        size = starts[left + 1] - starts[left] + starts[right + 1] - starts[right]
        if used[BYTES] + size > len(spelled):
            return MORE_ROOM
        used[HEAP] -= 1
        for i in range(3):
            heap[0, i] = heap[used[HEAP], i]
        sink(heap, pairs, used)
        place = new_token(left, right, token_keys, tokens, spelled, starts, used)
        if token_keys[place] == FREE:
            new = used[TOKENS]
            token_keys[place] = piece_key(spelled, used[BYTES], used[BYTES] + size)
            tokens[place] = new
            used[TOKENS] += 1
            used[BYTES] += size
            starts[new + 1] = used[BYTES]
        elif tokens[place] < control:
            continue
        new = tokens[place]
        merge = used[MERGES]
        merges[merge, 0], merges[merge, 1], merges[merge, 2] = left, right, new
        used[MERGES] += 1
        done += 1
        words = (symbols, word_starts, word_ends, word_counts)
        changed = merge_words(words, left, right, new, head, keys, numbers, pairs, counts, heads, links, touched, used)
        push_touched(heap, touched, changed, pairs, counts, heads, used)
    return ENOUGH
