"""The space of scenes and its division into splits."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.data.world.scene import COLOURS, NUMBERS, SHAPES, SPLITS, Item, Scene, decode_scene, draw_scene, split_of

LAYOUT = (2, 3)
HUNDREDTHS = {"train": 60, "curated": 10, "rollout": 15, "dev": 5, "test": 10}


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    item = st.builds(Item, st.sampled_from(COLOURS), st.sampled_from(SHAPES), st.sampled_from(list(map(str, NUMBERS))))
    return Scene(rows, columns, tuple(draw(st.lists(item, min_size=rows * columns, max_size=rows * columns))))


def random_scene(random_source: random.Random) -> Scene:
    items = (
        Item(random_source.choice(COLOURS), random_source.choice(SHAPES), str(random_source.choice(NUMBERS)))
        for _ in range(LAYOUT[0] * LAYOUT[1])
    )
    return Scene(*LAYOUT, tuple(items))


@given(scenes())
def test_encoding_is_one_line_and_reversible(scene: Scene) -> None:
    assert "\n" not in scene.encode()
    assert decode_scene(scene.encode()) == scene


def test_rows_and_places_follow_reading_order() -> None:
    scene = decode_scene("2x3:red circle 1,blue square 2,green star 3,red star 4,purple square 5,yellow triangle 1")
    assert [(name, item.number) for name, item in scene.cells(1)] == [("a1", "1"), ("a2", "2"), ("a3", "3")]
    assert [(name, item.number) for name, item in scene.cells(2)] == [("b1", "4"), ("b2", "5"), ("b3", "1")]
    assert scene.named_items() == scene.cells(1) + scene.cells(2)
    assert scene.name(2, 3) == "b3"
    assert scene.at(2, 3) == Item("yellow", "triangle", "1")
    assert scene.at(1, 3) == Item("green", "star", "3")


def test_shares_of_the_splits_are_the_stated_hundredths() -> None:
    """Binomial counts: within four standard deviations."""
    random_source, total = random.Random(1), 4000
    counts = Counter(split_of(random_scene(random_source)) for _ in range(total))
    assert set(counts) == set(SPLITS) == set(HUNDREDTHS)
    for split, hundredths in HUNDREDTHS.items():
        share = hundredths / 100
        assert abs(counts[split] - total * share) < 4 * (total * share * (1 - share)) ** 0.5


def test_no_scene_is_drawn_for_two_splits() -> None:
    random_source = random.Random(2)
    drawn = {
        split: {draw_scene(random_source, layout=(1, 2), split=split).encode() for _ in range(600)} for split in SPLITS
    }
    # Over so small a layout the splits together see most of its 10,000 scenes, some of them many times.
    assert len(drawn["dev"]) < 500
    for split, own in drawn.items():
        assert all(split_of(decode_scene(text)) == split for text in own)
        assert not own.intersection(*(other for name, other in drawn.items() if name != split))
        for name, other in drawn.items():
            assert name == split or not own & other


def test_the_split_depends_on_every_attribute_and_on_the_layout() -> None:
    """Neighbouring scenes are split independently: no split is a region of like scenes."""
    random_source = random.Random(3)
    moved = 0
    for _ in range(300):
        scene = random_scene(random_source)
        first = scene.items[0]
        other = Item(first.colour, first.shape, "1" if first.number == "5" else str(int(first.number) + 1))
        moved += split_of(scene) != split_of(Scene(*LAYOUT, (other, *scene.items[1:])))
    chance = 1 - sum((hundredths / 100) ** 2 for hundredths in HUNDREDTHS.values())
    assert abs(moved / 300 - chance) < 0.12


@pytest.mark.parametrize("split", SPLITS)
def test_draws_follow_from_the_seed(split: str) -> None:
    def draw(seed: int) -> list[str]:
        random_source = random.Random(seed)
        return [draw_scene(random_source, layout=LAYOUT, split=split).encode() for _ in range(5)]  # type: ignore[arg-type]

    assert draw(1) == draw(1)
    assert not set(draw(1)) & set(draw(2))


def test_drawn_items_use_every_colour_shape_and_number() -> None:
    random_source = random.Random(4)
    items = [item for _ in range(60) for item in draw_scene(random_source, layout=(3, 3), split="train").items]
    assert {item.colour for item in items} == set(COLOURS)
    assert {item.shape for item in items} == set(SHAPES)
    assert {item.number for item in items} == set(map(str, NUMBERS))
