"""Which pieces go into one sequence: lengths alone, so that a plan packs as training does."""

from collections.abc import Sequence


def fit(
    lengths: Sequence[int], token_budget: int, *, num_shares: int = 1, has_images: Sequence[bool] | None = None
) -> list[list[int]]:
    """The places of `lengths`, none above `token_budget`, in sequences of at most `token_budget` tokens.

    For one process as few sequences as first-fit finds. `num_shares` processes take a sequence each, round after round,
    and wait for the longest: few rounds of sequences of about one length, unless first-fit's take less. `has_images`
    says of each place whether it does, if some do: only sequences alike in that meet in a round.
    """
    found = _first_fit(lengths, token_budget)
    if num_shares == 1:
        return found
    images = has_images or [False] * len(lengths)
    even = _even(lengths, token_budget, num_shares, images)
    return min(even, found, key=lambda sequences: _duration(lengths, sequences, num_shares, images))


def _duration(
    lengths: Sequence[int], sequences: Sequence[Sequence[int]], num_shares: int, has_images: Sequence[bool]
) -> int:
    """Tokens that a process has run, or waited for, at the end: those of the longest sequence of every round."""
    kinds: dict[bool, list[int]] = {True: [], False: []}
    for sequence in sequences:
        kinds[any(has_images[place] for place in sequence)].append(sum(lengths[place] for place in sequence))
    return sum(sum(sorted(totals, reverse=True)[::num_shares]) for totals in kinds.values())


def _even(lengths: Sequence[int], token_budget: int, num_shares: int, has_images: Sequence[bool]) -> list[list[int]]:
    """For as few rounds as Graham's rule finds."""
    num_rounds = max(1, -(-sum(lengths) // (num_shares * token_budget)))
    while True:
        sequences = _spread(lengths, num_rounds * num_shares, has_images)
        if all(sum(lengths[place] for place in sequence) <= token_budget for sequence in sequences):
            return sequences
        num_rounds += 1


def _first_fit(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    sequences: list[list[int]] = []
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


def _spread(lengths: Sequence[int], count: int, has_images: Sequence[bool]) -> list[list[int]]:
    """The longest first, each to the shortest of `count` sequences so far, those with images before all others: no
    sequence is without, then, where there are enough. Empty sequences are left out."""
    sequences: list[list[int]] = [[] for _ in range(count)]
    totals = [0] * count
    for place in sorted(range(len(lengths)), key=lambda place: (not has_images[place], -lengths[place], place)):
        shortest = totals.index(min(totals))
        sequences[shortest].append(place)
        totals[shortest] += lengths[place]
    return [sorted(sequence) for sequence in sequences if sequence]
