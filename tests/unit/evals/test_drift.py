"""Distances against hand-worked numbers and identities; their small-sample claims against simulated imitators."""

from collections.abc import Sequence

import numpy as np
import pytest

from prism.evals.drift import MEASURES, MIN_PROMPTS, Distance, drift, jensen_shannon, plug_in_distances, wasserstein
from prism.records import Response
from prism.rewards import parse_response

NUMBERS = [name for name, measure in MEASURES.items() if measure.is_number]
NGRAMS = [name for name in MEASURES if name not in NUMBERS]


def response(caption: str, num_steps: int = 1, word: str = "so") -> Response:
    think = "\n".join(f"{number}. {word}" for number in range(1, num_steps + 1))
    return parse_response(f"<caption>{caption}</caption><think>{think}</think><answer>1</answer>")


def with_steps(counts: Sequence[int], name: str = "p") -> dict[str, list[Response]]:
    return {f"{name}{index}": [response("a star", count)] for index, count in enumerate(counts)}


def random_shares(generator: np.random.Generator, num_cells: int) -> np.ndarray:
    shares = generator.exponential(size=num_cells) * (generator.random(num_cells) < 0.7)
    return shares / shares.sum()


def test_wasserstein_of_a_hand_worked_pair():
    # Half of the mass goes from 1 to 4, over the half that stays at 2.
    first, second = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    assert wasserstein(first, second, np.array([1.0, 2.0, 4.0])) == pytest.approx(1.5)


def test_wasserstein_is_the_mean_distance_of_the_sorted_samples():
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 30, 200), generator.integers(5, 50, 200)
    values = np.unique(np.concatenate([first, second]))
    left, right = (np.array([(side == value).mean() for value in values]) for side in (first, second))
    expected = np.abs(np.sort(first) - np.sort(second)).mean()
    assert wasserstein(left, right, values.astype(float)) == pytest.approx(expected)


def test_jensen_shannon_of_hand_worked_pairs():
    # Mixture (3/4, 1/4) with 0.811278 bits; the sides have 0 and 1 bit.
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(0.311278, abs=1e-6)
    assert jensen_shannon(np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 0.1, 0.9])) == pytest.approx(1)


def test_distances_are_symmetric_and_zero_for_equals():
    generator = np.random.default_rng(1)
    for _ in range(20):
        p, q = random_shares(generator, 12), random_shares(generator, 12)
        values = np.sort(generator.choice(100, 12, replace=False)).astype(float)
        assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p)) and 0 < jensen_shannon(p, q) <= 1
        assert wasserstein(p, q, values) == pytest.approx(wasserstein(q, p, values))
        assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-12) and wasserstein(p, p, values) == 0


def test_merging_cells_only_lowers_the_divergence():
    generator = np.random.default_rng(2)
    for _ in range(20):
        p, q = random_shares(generator, 12), random_shares(generator, 12)
        merged = [np.append(shares[:4], shares[4:].sum()) for shares in (p, q)]
        assert jensen_shannon(*merged) <= jensen_shannon(p, q) + 1e-12


def test_responses_with_hand_worked_distances():
    teacher = {f"t{index}": [response("a red star, a star", 3)] for index in range(MIN_PROMPTS)}
    policy = {f"p{index}": [response("a star", 1), response("a star", 2)] for index in range(4)}
    found = drift(policy, teacher)
    assert found["reasoning/steps"].plug_in == pytest.approx(1.5)
    assert found["description/items"].plug_in == pytest.approx(1)
    assert found["description/length"].plug_in == pytest.approx(4)  # "a red star , a star" and "a star"
    # a 1/3, red 1/6, star 1/3, the comma 1/6 against a 1/2, star 1/2.
    p, q = np.array([2, 1, 2, 1]) / 6, np.array([1, 0, 1, 0]) / 2
    mixed = (p + q) / 2
    expected = (p @ np.log2(p / mixed) + (q[[0, 2]] @ np.log2(q[[0, 2]] / mixed[[0, 2]]))) / 2
    assert found["description/unigrams"].plug_in == pytest.approx(expected)
    assert (found["reasoning/steps"].num_responses, found["reasoning/steps"].num_teacher_responses) == (8, MIN_PROMPTS)
    assert found["reasoning/steps"].interval.count == 4


def test_texts_without_a_common_word_are_one_bit_apart():
    teacher = {f"t{index}": [response("red star", 2, "so")] for index in range(MIN_PROMPTS)}
    policy = {f"p{index}": [response("blue circle thing", 2, "thus")] for index in range(MIN_PROMPTS)}
    found = drift(policy, teacher)
    assert found["description/unigrams"].plug_in == pytest.approx(1)
    assert found["description/bigrams"].interval.mean == pytest.approx(1)
    # Of five bigrams each, "1 ." and "2 ." are on both sides: three fifths have no counterpart.
    assert found["reasoning/bigrams"].plug_in == pytest.approx(3 / 5)


def varied(generator: np.random.Generator, num_prompts: int, num_samples: int = 1, more: float = 0.0) -> dict:
    """Prompts differ in how many steps they call for, and each response in itself."""
    usual = generator.integers(1, 5, num_prompts)
    return {
        f"p{index}": [response("a star", int(usual[index] + generator.poisson(1 + more))) for _ in range(num_samples)]
        for index in range(num_prompts)
    }


def test_equal_sets_have_no_drift_even_when_resampled():
    policy = varied(np.random.default_rng(3), 20)
    for name, distance in drift(policy, policy).items():
        assert distance.plug_in == pytest.approx(0, abs=1e-9), name
        assert distance.interval.mean == pytest.approx(0, abs=1e-9), name
    # To other prompts the same texts are two samples of one distribution, which could have differed.
    renamed = {f"other {prompt}": given for prompt, given in policy.items()}
    found = drift(policy, renamed)["reasoning/steps"]
    assert found.plug_in == 0 and found.interval.low == 0 and found.floor is not None and found.floor > 0.2


def test_order_and_repeated_calls_change_nothing():
    generator = np.random.default_rng(4)
    policy, teacher = varied(generator, 15, 2), varied(generator, 20)
    turned = {prompt: given[::-1] for prompt, given in reversed(policy.items())}
    again = drift(turned, dict(reversed(teacher.items())), num_resamples=50)
    assert drift(policy, teacher, num_resamples=50) == again


def test_what_cannot_be_measured_is_none_beside_its_counts():
    teacher = {f"t{index}": [response("a star")] for index in range(MIN_PROMPTS - 1)}
    found = drift({"p": [parse_response("no format"), parse_response("none")]}, teacher)
    nothing = {"mean": None, "low": None, "high": None, "count": 0, "plug_in": None, "floor": None}
    assert found["reasoning/steps"].to_dict() == nothing | {"num_responses": 0, "num_teacher_responses": 9}
    assert found["whole/length"].num_responses == 2 and found["whole/length"].plug_in is not None
    # Nine prompts make no n-gram frequent enough to tell it apart.
    assert all(drift(teacher, teacher)[name].plug_in is None for name in NGRAMS)
    assert all(distance.plug_in is None for distance in drift({}, teacher).values())
    assert all(distance.plug_in is None for distance in drift(teacher, {}).values())


def test_an_n_gram_counts_apart_from_ten_prompts_on():
    common = {f"t{index}": [response("a star")] for index in range(MIN_PROMPTS)}
    teacher = common | {"rare": [response("a rare rare rare rare rare rare rare rare rare star")]}
    # Both rare words and unknown ones are "another word", so these two captions are one and the same.
    for word in ("rare", "unknown"):
        policy = common | {"rare": [response("a " + f"{word} " * 9 + "star")]}
        assert drift(policy, teacher)["description/unigrams"].plug_in == pytest.approx(0, abs=1e-12)


def simulate(more: float, num_runs: int) -> list[Distance]:
    generator = np.random.default_rng(5)
    found = []
    for _ in range(num_runs):
        seed = int(generator.integers(1 << 30))
        # The same seed calls for the same steps per prompt on both sides, but draws each response anew.
        policy = varied(np.random.default_rng(seed), 25, 2, more)
        teacher = varied(np.random.default_rng(seed), 25, 1)
        found.append(_only_steps(policy, teacher))
    return found


def _only_steps(policy: dict, teacher: dict) -> Distance:
    return drift(policy, teacher, num_resamples=150)["reasoning/steps"]


def test_a_perfect_imitator_stays_below_the_floor():
    found = simulate(0.0, 40)
    plug_ins = [distance.plug_in for distance in found if distance.plug_in is not None]
    above = sum(distance.plug_in > distance.floor for distance in found)  # type: ignore[operator]
    assert above <= 4
    assert sum(distance.interval.low == 0 for distance in found) >= 36
    # The plug-in distance claims a drift where there is none; the corrected one claims less of it.
    means = [distance.interval.mean for distance in found if distance.interval.mean is not None]
    assert len(plug_ins) == len(means) == 40 and np.mean(means) < 0.75 * np.mean(plug_ins)


def test_limits_hold_the_true_distance():
    # Poisson(3) lies above Poisson(1), so their Wasserstein distance is the difference of the means.
    found = simulate(2.0, 40)
    intervals = [distance.interval for distance in found]
    held = sum(interval.low <= 2 <= interval.high for interval in intervals)  # type: ignore[operator]
    assert held >= 35
    assert all(distance.plug_in > distance.floor for distance in found)  # type: ignore[operator]


def test_distances_of_one_step_are_the_plug_in_ones_with_every_ngram_told_apart():
    generator = np.random.default_rng(4)
    side, teacher = varied(generator, 12, more=1.0), varied(generator, 12, more=0.0)
    whole = {name: distance.plug_in for name, distance in drift(side, teacher).items()}
    found = plug_in_distances(side, teacher)
    for name, measure in MEASURES.items():
        if measure.is_number:
            assert found[name] == pytest.approx(whole[name])
    # Two prompts are too few for `drift` to tell any n-gram apart.
    few, few_teacher = with_steps([1, 2]), with_steps([3, 3])
    assert drift(few, few_teacher)["reasoning/unigrams"].plug_in is None
    assert plug_in_distances(few, few_teacher)["reasoning/steps"] == 1.5
    assert (plug_in_distances(few, few_teacher)["reasoning/unigrams"] or 0) > 0
    assert plug_in_distances(few, few)["reasoning/unigrams"] == 0
    assert plug_in_distances({"p0": [parse_response("no format")]}, few)["reasoning/unigrams"] is None
