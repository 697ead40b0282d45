"""The same question in other words, and others that differ from it in one word that matters."""

import time

import pytest

from prism.data.question_likeness import ask_the_same, minhash_bands, ngrams, question_words, telling_hash


def same(first: str, second: str) -> bool:
    a, b = question_words(first), question_words(second)
    assert ask_the_same(a, b) == ask_the_same(b, a)
    if ask_the_same(a, b):
        # Otherwise they would never be compared.
        assert telling_hash(a) == telling_hash(b) and set(minhash_bands(a)) & set(minhash_bands(b))
    return ask_the_same(a, b)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("<image>How many red circles are there?", "Count the red circles in the picture.<image>"),
        ("How many red circles are there?", "What is the number of red circles shown in the image?"),
        ("What is the sum of the numbers in column 2?", "Calculate the sum of the numbers in column two."),
        ("Are there more stars or more squares?", "Tell me: are there more stars or more squares in this scene?"),
        ("In triangle ABC, AB = 5 and BC = 12. Find the area.", "Find the area of triangle ABC, where AB is 5, BC 12."),
        (
            r"As shown in the figure, $\angle 1 = 50^{\circ}$ and $l$ is parallel to $m$. Find $\angle 2$.",
            "∠1 = 50° and l is parallel to m, as shown in the diagram below. Determine ∠2.",
        ),
        ("What hue and which texture does picture 1 show?", "Which texture does picture 1 show, and what is its hue?"),
        ("Ｈow many cats？", "how many cats"),
    ],
)
def test_other_words_for_the_same(first: str, second: str) -> None:
    assert same(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("How many red circles are there?", "How many blue circles are there?"),
        ("How many red circles are there?", "How many red squares are there?"),
        ("How many circles are striped?", "How many circles are there?"),
        ("Is the red circle left of the blue square?", "Is the red circle right of the blue square?"),
        ("Is the red circle left of the blue square?", "Is the blue circle left of the red square?"),
        ("Is the red circle left of the blue square?", "Is the blue square left of the red circle?"),
        ("Does the dog chase the cat?", "Does the cat chase the dog?"),
        ("Which of these is correct?", "Which of these is not correct?"),
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("What is f(x) at 3?", "What is f(X) at 3?"),
        ("In triangle ABC, AB = 5. Find the area.", "In triangle ABC, AC = 5. Find the area."),
        ("In triangle ABC, AB = 5. Find the area.", "In triangle ABC, AB = 5. Find the perimeter."),
        ("What is in the picture?", "How many cats?"),
    ],
)
def test_one_word_makes_another_question(first: str, second: str) -> None:
    assert not same(first, second)


def test_ngrams_are_runs_of_words_as_written() -> None:
    text = "One two, three FOUR five"
    assert len(ngrams(text, 4)) == 2 and ngrams(text, 6) == []
    assert ngrams("zero one two three four", 4)[1] == ngrams(text, 4)[0]
    assert not set(ngrams("two one three four five", 3)[:2]) & set(ngrams(text, 3))


@pytest.mark.parametrize("text", ["^" + " " * 200_000, "a" + "\u0301" * 100_000 + "\u0323" * 100_000, "=^{" * 70_000])
def test_a_long_question_takes_no_longer_than_its_length(text: str) -> None:
    start = time.process_time()
    question_words(text)
    ngrams(text, 8)
    assert time.process_time() - start < 5
