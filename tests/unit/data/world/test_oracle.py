"""Descriptions, their scoring, and the annotators who write them."""

import random
import re

import pytest

from prism.data.world.oracle import (
    Fidelity,
    caption_fraction,
    demonstrate,
    describe,
    parse_description,
    perceive,
)
from prism.data.world.questions import KINDS, draw_question, solve
from prism.data.world.scene import Scene, decode_scene, draw_scene
from prism.models import PromptEncoder
from prism.rewards import parse_response
from prism.stages.workspace import SHIPPED_BASE

SCENE = decode_scene("2x2:red circle 2,blue square 5,green star 1,red circle 3")
CAPTION = "a1 red circle 2, a2 blue square 5. b1 green star 1, b2 red circle 3."


def read_back(caption: str, rows: int, columns: int) -> Scene:
    """The scene a caption describes, read by a pattern of its own."""
    items = re.findall(r"[a-d]\d ([a-z]+) ([a-z]+) (\d|\?)[,.]", caption)
    return decode_scene(f"{rows}x{columns}:" + ",".join(" ".join(words) for words in items))


def test_description_by_hand() -> None:
    assert describe(SCENE) == CAPTION
    assert parse_description(CAPTION) == (
        "a1 red circle 2",
        "a2 blue square 5",
        "b1 green star 1",
        "b2 red circle 3",
    )


@pytest.mark.parametrize(
    ("caption", "right_of_twelve"),
    [
        (CAPTION, 12),
        (CAPTION.replace("blue", "red"), 11),
        (CAPTION.replace("blue square 5", "some thing ?"), 9),
        ("a1 red circle 2, a2 blue square 5.", 6),
        # Every item is there, but two have changed places: only what they share is right.
        ("a1 blue square 5, a2 red circle 2. b1 green star 1, b2 red circle 3.", 6),
        # Rightly described, wrongly named.
        (CAPTION.replace("b2", "b3"), 9),
        ("red circle 2, blue square 5. green star 1, red circle 3.", 0),
        ("", 0),
        ("a nice picture", 0),
        ("a1 red", 1),
        ("a1", 0),
    ],
)
def test_caption_fraction_by_hand(caption: str, right_of_twelve: int) -> None:
    assert caption_fraction(caption, SCENE) == pytest.approx(right_of_twelve / 12)


def test_surplus_items_and_words_lower_the_fraction() -> None:
    assert caption_fraction(CAPTION + " c1 red circle 1.", SCENE) == pytest.approx(12 / 15)
    assert caption_fraction(CAPTION.replace("circle 2", "circle 2 4"), SCENE) == pytest.approx(12 / 13)


def test_descriptions_of_one_layout_have_one_length_in_tokens() -> None:
    encoder, random_source = PromptEncoder.from_pretrained(SHIPPED_BASE), random.Random(5)
    for layout in ((3, 3), (2, 4), (3, 4), (4, 3)):
        lengths = set()
        for _ in range(25):
            scene = draw_scene(random_source, layout=layout, split="train")
            for fidelity in (Fidelity(), Fidelity(wrong=0.4, vague=0.4), Fidelity(vague=1.0)):
                lengths.add(len(encoder.completion_ids(describe(perceive(scene, fidelity, random_source)))))
        assert len(lengths) == 1


def test_an_annotator_errs_at_the_stated_rates() -> None:
    """21,600 attributes: within four standard deviations of both rates, for each attribute alone."""
    fidelity, random_source = Fidelity(wrong=0.08, vague=0.12), random.Random(6)
    pairs = []
    for _ in range(800):
        scene = draw_scene(random_source, layout=(3, 3), split="train")
        pairs += zip(scene.items, perceive(scene, fidelity, random_source).items, strict=True)
    for attribute, vague in (("colour", "some"), ("shape", "thing"), ("number", "?")):
        seen = [(getattr(true, attribute), getattr(item, attribute)) for true, item in pairs]
        for rate, count in (
            (0.12, sum(word == vague for _, word in seen)),
            (0.08, sum(word not in (true, vague) for true, word in seen)),
        ):
            assert abs(count - rate * len(seen)) < 4 * (rate * (1 - rate) * len(seen)) ** 0.5


ONE_WAY = {"purple": "blue", "star": "square", "5": "4"}
BOTH_WAYS = ONE_WAY | {"blue": "purple", "square": "star", "4": "5"}


@pytest.mark.parametrize("mutual", [False, True])
def test_look_alikes_are_confused_at_the_stated_rate_and_nothing_else_is(mutual: bool) -> None:
    fidelity, random_source = Fidelity(confused=0.6, mutual=mutual), random.Random(8)
    lookalikes = BOTH_WAYS if mutual else ONE_WAY
    seen: dict[str, list[str]] = {}
    for _ in range(400):
        scene = draw_scene(random_source, layout=(3, 3), split="train")
        for true, item in zip(scene.items, perceive(scene, fidelity, random_source).items, strict=True):
            for word, other in zip(str(true).split(), str(item).split(), strict=True):
                seen.setdefault(word, []).append(other)
    for word, others in seen.items():
        lookalike = lookalikes.get(word)
        assert set(others) <= {word, lookalike}
        if lookalike is not None:
            count = others.count(lookalike)
            assert abs(count - 0.6 * len(others)) < 4 * (0.6 * 0.4 * len(others)) ** 0.5


def test_a_faithful_annotator_sees_what_is_there() -> None:
    assert perceive(SCENE, Fidelity(), random.Random(7)) == SCENE
    assert all(str(item) == "some thing ?" for item in perceive(SCENE, Fidelity(vague=1.0), random.Random(7)).items)


@pytest.mark.parametrize("kind", KINDS)
def test_reasoning_and_answer_follow_from_what_was_described(kind: str) -> None:
    """Also where the description is wrong: the caption is read back and the question solved on it."""
    random_source = random.Random(f"follow/{kind}")
    num_misled = 0
    for _ in range(60):
        scene = draw_scene(random_source, layout=(3, 3), split="train")
        question = draw_question(random_source, scene, kind)
        if question is None:
            continue
        response = parse_response(demonstrate(scene, question, Fidelity(wrong=0.3, vague=0.2), random_source))
        assert response.is_valid and response.caption and response.think
        described = read_back(response.caption, 3, 3)
        assert len(described.items) == 9
        expected = solve(question, described)
        assert response.answer == expected.answer
        assert response.think == "\n".join(f"{number}. {step}." for number, step in enumerate(expected.steps, 1))
        colours, shapes = "red|blue|green|yellow|purple|some", "circle|square|triangle|star|thing"
        cited = re.findall(rf"[a-d]\d (?:{colours}) (?:{shapes}) (?:\d|\?)", response.think)
        assert set(cited) <= set(re.split(r"[,.] ?", response.caption))
        words = {name: words for name, *words in map(str.split, re.findall(r"[a-d]\d [^,.]+", response.caption))}
        for name, word in re.findall(r"([a-d]\d) (?:is (?![a-d]\d))?(?!is )(\w+|\?)", response.think):
            assert word in words[name]
        if kind in ("count", "sum", "compare"):
            assert re.findall(r"[a-d]\d", response.think) == list(words)
        num_misled += response.answer != solve(question, scene).answer
    assert num_misled > 5


def test_terse_reasoning_comes_at_its_rate_and_skips_the_steps() -> None:
    random_source, total = random.Random(8), 400
    question = draw_question(random_source, SCENE, "count")
    assert question is not None
    thinks = [
        parse_response(demonstrate(SCENE, question, Fidelity(terse=0.3), random_source)).think for _ in range(total)
    ]
    terse = f"1. it is {solve(question, SCENE).answer}."
    assert abs(thinks.count(terse) - 0.3 * total) < 4 * (0.3 * 0.7 * total) ** 0.5
    assert len(set(thinks)) == 2
