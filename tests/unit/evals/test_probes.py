import io
import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from prism.data.images import open_image
from prism.evals.probes import (
    blank_image,
    blank_images,
    change_number,
    drop_last_sentence,
    perturb_response,
    probe_result,
    rank_correlation,
    shuffle_steps,
    swap_images,
    swap_lines,
)
from prism.evals.statistics import NOTHING_MEASURED, Interval, wilson_interval
from prism.records import ImageSource, Prompt
from prism.rewards import parse_response

SEEDS = range(40)


def outcomes(perturb, text: str) -> set[str | None]:
    """All that comes out over many draws, each draw repeated to see that it follows from its seed."""
    found = [perturb(text, random.Random(seed)) for seed in SEEDS]
    assert found == [perturb(text, random.Random(seed)) for seed in SEEDS]
    return set(found)


def test_steps_change_places_and_their_numbers_stay():
    found = outcomes(shuffle_steps, "1. add.\n2. divide.\nso 4.")
    orders = set(itertools.permutations(("add.", "divide.", "so 4."))) - {("add.", "divide.", "so 4.")}
    assert found == {f"1. {first}\n2. {second}\n{third}" for first, second, third in orders}


@pytest.mark.parametrize(
    ("think", "shuffled"),
    [
        ("First add. Then divide!", "Then divide! First add."),
        ("1. add. 2. divide.", "1. divide. 2. add."),
        ("Step 1: add\n\nStep 2: divide", "Step 1: divide\n\nStep 2: add"),
        ("It is 3.5 cm. So 7.", "So 7. It is 3.5 cm."),
        ("先加。后除。", "后除。先加。"),
    ],
)
def test_two_steps_change_places(think: str, shuffled: str):
    assert outcomes(shuffle_steps, think) == {shuffled}


@pytest.mark.parametrize("think", ["", "one step only.", "1. the same.\n2. the same."])
def test_steps_that_cannot_be_shuffled(think: str):
    assert outcomes(shuffle_steps, think) == {None}
    assert outcomes(swap_lines, think) == {None}


def test_two_lines_are_swapped_and_no_more():
    assert outcomes(swap_lines, "a\nb\nb\nc") == {"b\na\nb\nc", "b\nb\na\nc", "c\nb\nb\na", "a\nc\nb\nb", "a\nb\nc\nb"}


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a red circle. a blue star.", "a red circle."),
        ("1. add.\n2. divide. so 4.\n", "1. add."),
        ("It is 3.5 cm", None),
        ("", None),
    ],
)
def test_the_last_sentence_or_line_is_dropped(text: str, rest: str | None):
    assert drop_last_sentence(text) == rest


def test_one_digit_becomes_any_other():
    assert outcomes(change_number, "x = 5cm") == {f"x = {digit}cm" for digit in "012346789"}


def test_exactly_one_number_changes_and_keeps_its_notation():
    text = "1. b2 costs 1,200 at 3.5%, H2O is x_1.\n2. so 40."
    for changed in outcomes(change_number, text):
        assert changed is not None and len(changed) == len(text)
        [place] = [index for index, pair in enumerate(zip(text, changed, strict=True)) if len(set(pair)) > 1]
        assert text[place].isdigit() and changed[place].isdigit()
        number = next(number for number in ("1,200", "3.5", "40") if place - text.index(number) in range(len(number)))
        assert changed[text.index(number)] != "0"
    places = {
        index
        for changed in outcomes(change_number, text)
        for index, pair in enumerate(zip(text, changed or "", strict=True))
        if len(set(pair)) > 1
    }
    assert len({text[:place].count(" ") for place in places}) == 3  # each of the three numbers in some draw


@pytest.mark.parametrize("text", ["", "no number", "1. step\n2. step", "b2 and H2O"])
def test_texts_without_a_number_that_matters(text: str):
    assert outcomes(change_number, text) == {None}


def test_a_response_is_perturbed_in_one_part_only():
    response = parse_response("<caption>a. b.</caption>\n<think> 1. x\n2. y </think><answer>4</answer>")
    changed = perturb_response(response, "think", lambda text: shuffle_steps(text, random.Random(0)))
    assert changed is not None and changed.is_valid
    assert changed.text == "<caption>a. b.</caption>\n<think> 1. y\n2. x </think><answer>4</answer>"
    assert (changed.caption, changed.think, changed.answer) == ("a. b.", "1. y\n2. x", "4")
    dropped = perturb_response(response, "caption", drop_last_sentence)
    assert dropped is not None and dropped.caption == "a." and dropped.think == response.think


def test_what_cannot_be_perturbed_gives_nothing():
    response = parse_response("<caption>a</caption><think>x</think><answer>4</answer>")
    assert perturb_response(response, "caption", drop_last_sentence) is None
    assert perturb_response(response, "caption", lambda _: "</caption>") is None
    assert perturb_response(parse_response("a. b."), "caption", drop_last_sentence) is None


def picture(*pixels: tuple[int, int, int]) -> ImageSource:
    """One row of pixels."""
    image = Image.new("RGB", (len(pixels), 1))
    image.putdata(pixels)
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return ImageSource(data=encoded.getvalue())


RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_a_blank_image_keeps_size_and_mean_colour():
    image = open_image(blank_image(picture(RED, BLUE, BLUE, BLUE)))
    assert image.size == (4, 1)
    assert image.getcolors() == [(4, (64, 0, 191))]


def test_only_prompts_with_something_to_see_can_be_blanked():
    prompt = Prompt("a", "<image>?", (picture(RED, BLUE),), answer="4")
    blank = blank_images(prompt)
    assert blank is not None and (blank.id, blank.question, blank.answer) == ("a", "<image>?", "4")
    assert open_image(blank.images[0]).getcolors() == [(2, (128, 0, 128))]
    assert blank_images(Prompt("b", "?")) is None
    assert blank_images(Prompt("c", "<image>?", (picture(RED, RED),))) is None


def test_images_come_from_the_next_prompt_with_other_ones_of_the_same_size():
    images = [
        (picture(RED),),
        (picture(RED, RED),),
        (picture(RED),),
        (picture(BLUE),),
        (picture(RED), picture(BLUE)),
        (),
    ]
    prompts = [Prompt(str(index), "?", sources) for index, sources in enumerate(images)]
    swapped = swap_images(prompts)
    # 0 and 2 show the same, so both take 3; that takes the next round the end. Nobody else has 1's or 4's sizes.
    assert [prompt and prompt.images for prompt in swapped] == [images[3], None, images[3], images[0], None, None]
    assert [prompt.id for prompt in swapped if prompt] == ["0", "2", "3"]
    assert swap_images([]) == [] and swap_images(prompts[:1]) == [None]


def test_a_probe_counts_falls_and_ties():
    result = probe_result([1.0, 2.0, 3.0, 4.0], [0.5, 2.5, 3.0, 1.0])
    assert result.fallen.mean == (1 + 0 + 0.5 + 1) / 4
    assert result.fall.mean == pytest.approx((0.5 - 0.5 + 0 + 3) / 4)
    assert (result.num_pairs, result.num_tied) == (4, 1)
    # Changes of 0.5, 0.5, 0 and 3 on scores whose standard deviation is √1.25.
    assert result.shift == pytest.approx(1 / math.sqrt(1.25))
    assert not result.is_noticed


def test_a_fall_every_time_is_noticed_from_four_pairs_on_and_no_response_never():
    for count, is_noticed in ((3, False), (4, True)):
        result = probe_result([1.0] * count, [0.0] * count)
        assert result.fallen == wilson_interval(count, count)
        assert result.is_noticed is is_noticed
    blind = probe_result([1.0, 2.0], [1.0, 2.0])
    assert blind.fallen.mean == 0.5 and blind.num_tied == 2 and not blind.is_noticed


def test_rows_of_one_prompt_count_once_in_the_limits():
    scores = [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]
    result = probe_result(*scores, prompts=["a", "a", "b", "b"])
    assert result.fallen == wilson_interval(2, 2)


def test_a_probe_of_nothing_and_of_broken_scores():
    assert probe_result([], []).fallen == NOTHING_MEASURED
    assert probe_result([], []).shift is None and probe_result([1.0, 1.0], [0.0, 2.0]).shift is None
    with pytest.raises(ValueError, match="finite"):
        probe_result([float("nan")], [0.0])
    with pytest.raises(ValueError):
        probe_result([1.0], [])


def test_rank_correlation_worked_by_hand():
    # Ranks 1 2.5 2.5 4 5 against 2 1 3 5 4: products of deviations 2 + 1 + 0 + 2 + 2, squares 9.5 and 10.
    interval = rank_correlation([10, 20, 20, 30, 99], [5, 4, 6, 8, 7])
    assert interval.mean == pytest.approx(7 / math.sqrt(9.5 * 10))
    z, error = math.atanh(7 / math.sqrt(95)), math.sqrt((1 + 49 / 95 / 2) / 2)
    assert interval.low == pytest.approx(math.tanh(z - 1.959964 * error), abs=1e-6)
    assert interval.high == pytest.approx(math.tanh(z + 1.959964 * error), abs=1e-6)
    assert interval.count == 5


def test_rank_correlation_is_that_of_ranks():
    generator = np.random.default_rng(0)
    scores, lengths = generator.normal(size=30), generator.integers(1, 9, 30).astype(float)
    found = rank_correlation(list(scores), list(lengths))
    assert rank_correlation(list(np.exp(scores)), list(lengths**3)) == found
    reversed_sign = rank_correlation(list(-scores), list(lengths))
    assert reversed_sign.mean == pytest.approx(-(found.mean or 0))
    assert reversed_sign.low == pytest.approx(-(found.high or 0))


def test_limits_inside_groups_cover_the_truth():
    truth = 6 / math.pi * math.asin(0.5 / 2)  # Spearman's of a normal distribution with correlation ½
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        length = generator.normal(size=60)
        score = 0.5 * length + math.sqrt(0.75) * generator.normal(size=60)
        # Prompts of very different length and score, which must not count.
        shift = np.repeat(generator.normal(0, 50, 15), 4)
        interval = rank_correlation(list(score + shift), list(length + shift), [str(i // 4) for i in range(60)])
        assert interval.low is not None and interval.high is not None
        covered += interval.low <= truth <= interval.high
    assert covered / 300 == pytest.approx(0.95, abs=0.035)


def test_between_prompts_nothing_counts():
    scores, lengths = [1.0, 2.0, 11.0, 12.0], [2.0, 1.0, 102.0, 101.0]
    assert (rank_correlation(scores, lengths).mean or 0) > 0
    assert rank_correlation(scores, lengths, ["a", "a", "b", "b"]) == Interval(-1.0, None, None, 4)


@pytest.mark.parametrize(
    ("scores", "lengths", "groups"),
    [([], [], None), ([1.0], [2.0], None), ([1.0, 2.0], [3.0, 3.0], None), ([0.1, 0.7], [1.0, 2.0], ["a", "b"])],
)
def test_no_correlation_without_variation(scores: list[float], lengths: list[float], groups: list[str] | None):
    assert rank_correlation(scores, lengths, groups) == NOTHING_MEASURED


def test_rows_that_disagree_in_number_are_refused():
    with pytest.raises(ValueError, match="2 scores, 1 values"):
        rank_correlation([1.0, 2.0], [1.0])


def test_draws_are_not_all_the_same():
    text = "\n".join("abcdefgh")
    assert min(Counter(shuffle_steps(text, random.Random(seed)) for seed in SEEDS).values()) == 1
    assert len(outcomes(shuffle_steps, text)) > 30
