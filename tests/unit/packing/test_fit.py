"""Which pieces go into one sequence."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.packing.fit import fit

BUDGET = 100


def tokens(lengths: list[int], sequences: list[list[int]]) -> list[int]:
    return [sum(lengths[place] for place in sequence) for sequence in sequences]


def duration(totals: list[int], num_shares: int) -> int:
    """As `prism.runtime.distributed.share` deals them: the longest of every round."""
    return sum(sorted(totals, reverse=True)[::num_shares])


@given(st.lists(st.integers(1, BUDGET), max_size=40), st.integers(1, 9))
def test_every_piece_is_in_one_sequence_within_the_budget(lengths: list[int], num_shares: int) -> None:
    sequences = fit(lengths, BUDGET, num_shares=num_shares)
    assert sorted(itertools.chain.from_iterable(sequences)) == list(range(len(lengths)))
    assert all(0 < total <= BUDGET for total in tokens(lengths, sequences))


@given(st.lists(st.integers(1, BUDGET), max_size=40), st.integers(2, 9))
def test_processes_never_wait_longer_than_for_first_fits_sequences(lengths: list[int], num_shares: int) -> None:
    even, full = fit(lengths, BUDGET, num_shares=num_shares), fit(lengths, BUDGET)
    assert duration(tokens(lengths, even), num_shares) <= duration(tokens(lengths, full), num_shares)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(2, 9))
def test_short_pieces_leave_processes_as_even_as_the_longest_allows(lengths: list[int], num_shares: int) -> None:
    """Graham's bound for one round: less than a longest piece above the mean."""
    sequences = fit(lengths, 1000, num_shares=num_shares)
    assert len(sequences) == min(num_shares, len(lengths))
    assert max(tokens(lengths, sequences)) < sum(lengths) / num_shares + max(lengths)


def test_one_process_has_as_few_sequences_as_first_fit_finds() -> None:
    assert fit([60, 30, 50, 10, 40], BUDGET) == [[0, 1, 3], [2, 4]]


def test_processes_have_sequences_of_about_one_length() -> None:
    lengths = [60, 30, 50, 10, 40, 50]
    assert sorted(tokens(lengths, fit(lengths, 1000, num_shares=2))) == [110, 130]


def test_as_many_sequences_as_pieces_where_there_are_more_processes() -> None:
    assert fit([3, 5, 4], BUDGET, num_shares=8) == [[1], [2], [0]]


@pytest.mark.parametrize("num_shares", [1, 2, 8])
def test_a_piece_above_the_budget_is_alone(num_shares: int) -> None:
    """Training refuses such a row; a plan may meet one."""
    sequences = fit([300, 20, 30], BUDGET, num_shares=num_shares)
    assert [0] in sequences and sorted(itertools.chain.from_iterable(sequences)) == [0, 1, 2]


def test_many_pieces_of_more_than_half_the_budget_take_no_longer_than_first_fit() -> None:
    lengths = [60] * 2000
    assert len(fit(lengths, BUDGET, num_shares=8)) == 2000


def test_several_rounds_where_one_does_not_hold_all() -> None:
    sequences = fit([30] * 12, BUDGET, num_shares=2)
    assert tokens([30] * 12, sequences) == [90, 90, 90, 90]


def test_pieces_with_images_are_spread_over_all_sequences() -> None:
    """A sequence without would have to wait for one of its kind."""
    has_images = [False, True, False, True]
    sequences = fit([50, 10, 40, 10], BUDGET, num_shares=2, has_images=has_images)
    assert all(any(has_images[place] for place in sequence) for sequence in sequences)


@pytest.mark.parametrize("num_shares", [1, 4])
def test_nothing_to_pack(num_shares: int) -> None:
    assert fit([], BUDGET, num_shares=num_shares) == []
