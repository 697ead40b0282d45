"""Pretraining lessons: what they teach is true, and the whole response format is not among it."""

import random
import re
from collections import Counter

import pytest

from prism.data.world.lessons import Lesson, Unit, ask, check_description, check_reasoning, draw_lesson
from prism.data.world.oracle import Fidelity, describe, perceive, write_reasoning
from prism.data.world.questions import solve
from prism.data.world.scene import decode_scene, draw_scene
from prism.records import Example
from prism.rewards import parse_response

REASONED = r"<think>1\. [^<>]+\.</think><answer>([^<>\s]+)</answer>"
"""Reasoning in numbered steps and the answer, each in its tags."""


@pytest.fixture(scope="module")
def lessons() -> list[Example]:
    random_source = random.Random(1)
    return [draw_lesson(random_source) for _ in range(300)]


def of_sort(lessons: list[Example], ending: str) -> list[Example]:
    return [lesson for lesson in lessons if lesson.prompt.question.endswith(ending)]


def is_checked(lesson: Example) -> bool:
    """Whether a statement is judged: its image and question come without a task, or with that of correcting it."""
    return bool(lesson.prompt.images) and lesson.prompt.question.endswith(("?", " Correct the description."))


def test_lessons_never_show_the_response_format(lessons: list[Example]) -> None:
    """Reasoning and answer come in their tags, a description never does, and prompts hold no tag at all."""
    sorts = Counter()
    for lesson in lessons:
        assert "caption" not in lesson.prompt.question + lesson.completion
        assert not re.search(r"[<>]|think", lesson.prompt.question.replace("<image>", ""))
        assert not parse_response(lesson.completion).is_valid
        is_reasoned = not lesson.prompt.images or lesson.prompt.question.endswith("and reason.")
        if is_reasoned and not lesson.prompt.question.endswith(" Repeat."):
            expected = ["<think>", "</think>", "<answer>", "</answer>"]
        elif is_checked(lesson) and lesson.completion.startswith("1."):
            expected = ["<answer>", "</answer>"]
        else:
            expected = []
        assert re.findall(r"<[^>]*>", lesson.completion) == expected
        assert lesson.completion.count("<") == lesson.completion.count(">") == len(expected)
        sorts[len(expected)] += 1
    assert set(sorts) == {0, 2, 4}


def test_every_lesson_comes_up(lessons: list[Example]) -> None:
    endings = ("Describe the image.", "briefly.", "and reason.", "Correct the description.")
    assert all(of_sort(lessons, ending) for ending in endings)
    assert any(not lesson.prompt.images for lesson in lessons)
    checked = [lesson.completion for lesson in lessons if is_checked(lesson)]
    assert {text[:2] for text in checked} == {"a1", "1."}


def test_the_loss_is_on_the_marks_alone_where_statements_are_checked(lessons: list[Example]) -> None:
    for lesson in filter(is_checked, lessons):
        assert isinstance(lesson, Lesson) and bool(lesson.loss_spans) != bool(lesson.verdict)
        if lesson.verdict:
            assert re.fullmatch(r" \d+ wrong", lesson.verdict) and not re.search(
                "right(?! of)|wrong", lesson.completion
            )
            continue
        assert lesson.loss_spans
        marks = [lesson.completion[start:end].split()[-1] for start, end in lesson.loss_spans]
        assert set(marks) <= {"right", "wrong"}  # " 2 wrong" counts the wrong words
        # What is left without the marks says nothing of right and wrong.
        assert not re.search("right(?! of)|wrong", unmarked(lesson))


def unmarked(lesson: Example) -> str:
    """The completion without what the loss is on."""
    kept, cursor = "", 0
    for start, end in lesson.loss_spans or ():
        kept, cursor = kept + lesson.completion[cursor:start], end
    return kept + lesson.completion[cursor:]


@pytest.mark.parametrize("unit", ["word", "corrected word"])
def test_every_word_of_a_description_is_marked_by_what_the_scene_holds(unit: Unit) -> None:
    random_source = random.Random(6)
    num_wrong = 0
    for _ in range(20):
        scene = draw_scene(random_source, layout=(2, 4), split="train")
        lesson = check_description(random_source, scene, unit)
        assert lesson.loss_spans is not None
        answers = [lesson.completion[start:end].split() for start, end in lesson.loss_spans]
        stated = [cell.split()[1:] for cell in re.split(r"[,.] ?", unmarked(lesson)) if cell]
        words = [word for cell in stated for word in cell]
        true = [word for item in scene.items for word in str(item).split()]
        marks = ["right" if word == other else "wrong" for word, other in zip(words, true, strict=True)]
        assert answers == [[mark] if unit == "word" else [other, mark] for other, mark in zip(true, marks, strict=True)]
        num_wrong += marks.count("wrong")
    assert 50 < num_wrong < 350


@pytest.mark.parametrize("unit", ["cell", "row", "whole"])
def test_the_wrong_words_of_larger_units_are_counted(unit: Unit) -> None:
    """The words of each unit are compared with those the scene holds there."""
    random_source = random.Random(9)
    counts, lengths = Counter(), Counter()
    for _ in range(60):
        scene = draw_scene(random_source, layout=(2, 4), split="train")
        lesson = check_description(random_source, scene, unit)
        judged = lesson.completion + lesson.verdict
        *parts, rest = re.split(r" \d+ wrong ?", judged)
        assert rest == "" and len(parts) == {"cell": 8, "row": 2, "whole": 1}[unit]
        stated = [re.sub(r"[,.]", "", part).split() for part in parts]
        true = iter(re.sub(r"[,.]", "", describe(scene)).split())
        expected = [sum(word != next(true) for word in words) for words in stated]
        assert [int(count) for count in re.findall(r" (\d+) wrong", judged)] == expected
        assert (len(lesson.loss_spans or ()), bool(lesson.verdict)) == (
            (0, True) if unit == "whole" else (len(parts), False)
        )
        counts.update(expected)
        lengths[sum(map(len, stated)) // 4] += 1
    assert 0.15 < counts[0] / counts.total() < 0.85
    # Every cell is there, but where a whole stops early.
    assert lengths[8] == 60 if unit != "whole" else (25 < lengths[8] < 50 and len(lengths) == 8)


@pytest.mark.parametrize("by_step", [False, True])
def test_reasoning_is_right_if_it_is_the_whole_solution(by_step: bool) -> None:
    verdicts = Counter()
    for number in range(80):
        scene = draw_scene(random.Random(f"scene/{number}"), layout=(3, 3), split="train")
        lesson = check_reasoning(random.Random(number), scene, by_step=by_step)
        solution = solve(ask(random.Random(number), scene), scene)
        is_right = unmarked(lesson) == f"{write_reasoning(solution)}\n<answer>{solution.answer}</answer>"
        marks = re.findall("(?<= )(?:right|wrong)$", lesson.completion, re.MULTILINE)
        assert len(marks) == (unmarked(lesson).count("\n") + 1 if by_step else 0)
        assert is_right == (set(marks) == {"right"} if by_step else lesson.verdict == " 0 wrong")
        verdicts[is_right] += 1
    assert min(verdicts.values()) > 10


def test_following_a_wrong_description_puts_no_loss_on_it(lessons: list[Example]) -> None:
    for lesson in of_sort(lessons, "and reason."):
        assert lesson.loss_spans and len(lesson.loss_spans) == 1
        start, end = lesson.loss_spans[0]
        assert end == len(lesson.completion)
        assert re.fullmatch(r"a1 [^<>\n]+\.", lesson.completion[:start])
        assert re.fullmatch(REASONED, lesson.completion[start:].removeprefix("\n"))
        assert lesson.completion[start] == "\n"


def test_reading_gives_the_answer_that_the_text_supports(lessons: list[Example]) -> None:
    """The described scene is read back from the question."""
    num_counted = 0
    for lesson in lessons:
        if lesson.prompt.images or lesson.prompt.question.endswith(" Repeat."):
            continue
        reasoned = re.fullmatch(REASONED, lesson.completion)
        assert reasoned
        text, _, asked = lesson.prompt.question.rpartition(". ")
        rows = [re.sub(r"[a-d]\d ", "", row).split(", ") for row in text.split(". ")]
        scene = decode_scene(f"{len(rows)}x{len(rows[0])}:" + ",".join(item for row in rows for item in row))
        if found := re.fullmatch(r"How many (\w+?)(?: objects|s) are there\?", asked):
            assert reasoned[1] == str(scene.encode().count(found[1]))
            num_counted += 1
    assert num_counted > 3


def test_pretraining_begins_with_describing_and_repeating() -> None:
    random_source = random.Random(5)
    early = [draw_lesson(random_source, 0) for _ in range(30)]
    for lesson in early:
        is_copy = lesson.prompt.question == f"{lesson.completion} Repeat." and not lesson.prompt.images
        assert is_copy or lesson.prompt.question == "Describe the image."
    assert 5 < sum(bool(lesson.prompt.images) for lesson in early) < 25
    late = [draw_lesson(random_source) for _ in range(30)]
    assert len({lesson.prompt.question for lesson in late}) > 10


def test_lessons_follow_from_the_seed() -> None:
    def draw(seed: int) -> list[str]:
        random_source = random.Random(seed)
        return [draw_lesson(random_source).completion for _ in range(6)]

    assert draw(2) == draw(2) != draw(3)


def test_asking_repeats_until_a_question_has_one_answer() -> None:
    random_source = random.Random(4)
    for _ in range(40):
        scene = draw_scene(random_source, layout=(2, 3), split="train")
        question = ask(random_source, scene, ("compare", "neighbour"))
        assert solve(question, scene).answer != "none"
        assert perceive(scene, Fidelity(), random_source) == scene
