"""Which pieces go into one sequence: lengths alone, so that a plan packs as training does."""

import heapq
from collections.abc import Sequence

Sequences = list[list[int]]
"""Each the places of its pieces, in order."""


def fit(
    lengths: Sequence[int], token_budget: int, *, num_shares: int = 1, has_images: Sequence[bool] | None = None
) -> Sequences:
    """The places of pieces of these `lengths`, in sequences of at most `token_budget` tokens; a longer piece is alone.

    For one process as few sequences as first-fit finds. `num_shares` processes take a sequence each, round after round,
    and wait for the longest: as few rounds, of sequences of about one length, unless first-fit's take less.
    `has_images` tells which pieces have images; in a round all sequences have some, or none has.
    """
    full = _first_fit(lengths, token_budget)
    if num_shares == 1:
        return full
    images = has_images or [False] * len(lengths)
    fewest = max(1, -(-sum(lengths) // (num_shares * token_budget)))
    for num_rounds in range(fewest, -(-len(full) // num_shares) + 1):
        even = _spread(lengths, num_rounds * num_shares, images)
        if all(len(sequence) == 1 or _total(lengths, sequence) <= token_budget for sequence in even):
            return min(even, full, key=lambda sequences: _duration(lengths, sequences, num_shares, images))
    return full


def _total(lengths: Sequence[int], sequence: Sequence[int]) -> int:
    return sum(lengths[place] for place in sequence)


def _duration(lengths: Sequence[int], sequences: Sequences, num_shares: int, has_images: Sequence[bool]) -> int:
    """Tokens that a process has run, or waited for, at the end: those of the longest sequence of every round."""
    kinds: dict[bool, list[int]] = {True: [], False: []}
    for sequence in sequences:
        kinds[any(has_images[place] for place in sequence)].append(_total(lengths, sequence))
    return sum(sum(sorted(totals, reverse=True)[::num_shares]) for totals in kinds.values())


def _first_fit(lengths: Sequence[int], token_budget: int) -> Sequences:
    sequences: Sequences = []
    room: list[int] = []
    for place, length in enumerate(lengths):
        index = next((index for index, free in enumerate(room) if length <= free), None)
        if index is None:
            sequences.append([place])
            room.append(token_budget - length)
        else:
            sequences[index].append(place)
            room[index] -= length
    return sequences


def _spread(lengths: Sequence[int], count: int, has_images: Sequence[bool]) -> Sequences:
    """The longest first, each to the shortest of `count` sequences so far (Graham's rule), those with images before all
    others: no sequence is without, then, where there are enough. Empty sequences are left out."""
    sequences: Sequences = [[] for _ in range(count)]
    by_length = [(0, index) for index in range(count)]
    for place in sorted(range(len(lengths)), key=lambda place: (not has_images[place], -lengths[place], place)):
        total, shortest = by_length[0]
        sequences[shortest].append(place)
        heapq.heapreplace(by_length, (total + lengths[place], shortest))
    return [sorted(sequence) for sequence in sequences if sequence]
