import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import prism
from prism.rewards import FormatFailure, TokenSpans, parse_response, token_span, token_spans

GOOD = "<caption>a red disc</caption><think>1. one disc</think><answer>red</answer>"


def test_valid_response_is_split_into_stripped_parts():
    response = parse_response(
        " <caption>\n a red disc \n</caption>\n<think> 1. one disc</think> <answer>red\t</answer>\n"
    )
    assert response.is_valid and response.reason is None
    assert (response.caption, response.think, response.answer) == ("a red disc", "1. one disc", "red")


def test_spans_index_the_stripped_contents():
    text = "\n<caption>  é b </caption> <think>c</think><answer>\u3000d e\u3000</answer>"
    response = parse_response(text)
    parts = [
        (response.caption, response.caption_span),
        (response.think, response.think_span),
        (response.answer, response.answer_span),
    ]
    for content, span in parts:
        assert span is not None and text[span[0] : span[1]] == content
    assert response.answer == "d e"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "missing_caption"),
        ("red", "missing_caption"),
        (GOOD.replace("caption", "description"), "missing_caption"),
        ("<caption>c</caption><answer>a</answer>", "missing_think"),
        ("<caption>c</caption><think>t</think>", "missing_answer"),
        (GOOD + "<answer>blue</answer>", "duplicate_tag"),
        (GOOD + GOOD, "duplicate_tag"),
        (GOOD.replace("one disc", "<answer>blue</answer>"), "duplicate_tag"),
        (GOOD.replace("one disc", "so </answer>"), "duplicate_tag"),
        (GOOD.replace("</think>", ""), "unbalanced_tag"),
        (GOOD.replace("<answer>", ""), "unbalanced_tag"),
        (GOOD.removesuffix("</answer>"), "unbalanced_tag"),
        ("<think>t</think><caption>c</caption><answer>a</answer>", "wrong_order"),
        ("<caption>c<think>t</think></caption><answer>a</answer>", "wrong_order"),
        ("<caption>c<think>x</caption>t</think><answer>a</answer>", "wrong_order"),
        ("</caption>c<caption><think>t</think><answer>a</answer>", "wrong_order"),
        ("Sure! " + GOOD, "text_outside_tags"),
        (GOOD + " done", "text_outside_tags"),
        (GOOD.replace("</caption>", "</caption>and"), "text_outside_tags"),
        (GOOD.replace("</think>", "</think>."), "text_outside_tags"),
        (GOOD.replace("a red disc", " \n"), "empty_caption"),
        (GOOD.replace("1. one disc", ""), "empty_think"),
        (GOOD.replace("red</answer>", "</answer>"), "empty_answer"),
        (GOOD.replace("red</answer>", "\u200b\x00</answer>"), "empty_answer"),
        (GOOD.replace("one disc", "<Answer>blue</Answer>"), "malformed_tag"),
        (GOOD.replace("one disc", "< / think >"), "malformed_tag"),
        (GOOD.replace("one disc", "<answer/>"), "malformed_tag"),
    ],
)
def test_every_failure_is_named(text: str, reason: str):
    response = parse_response(text)
    assert not response.is_valid
    assert response.reason == reason == FormatFailure(reason)
    assert response.text == text
    assert response.caption is response.think is response.answer is None
    assert response.caption_span is response.think_span is response.answer_span is None


def test_other_markup_is_content():
    response = parse_response(GOOD.replace("one disc", "if a < b and b > c then <b>x</b> <thinking>"))
    assert response.think == "1. if a < b and b > c then <b>x</b> <thinking>"


@pytest.mark.parametrize("piece", ["<", "< ", "</", "<caption>", "<answer", "\u200b", " ", "</think>", "<think "])
def test_hostile_input_takes_linear_time(piece: str):
    text = f"<caption>{piece * 100_000}</caption><think>t</think><answer>a</answer>"
    started = time.process_time()
    parse_response(text)
    parse_response(piece * 100_000)
    assert time.process_time() - started < 2.0


content = st.text(alphabet=st.sampled_from("ab <>/\n.0"), max_size=20)


@given(content, content, content, st.sampled_from(["", " ", "\n\n"]))
def test_round_trip(caption: str, think: str, answer: str, gap: str):
    text = f"<caption>{caption}</caption>{gap}<think>{think}</think>{gap}<answer>{answer}</answer>"
    response = parse_response(text)
    assert response.is_valid == all(part.strip() for part in (caption, think, answer))
    if response.is_valid:
        assert [response.caption, response.think, response.answer] == [caption.strip(), think.strip(), answer.strip()]


@given(st.lists(st.sampled_from(["<caption>", "</caption>", "<think>", "</think>", "<answer>", "</answer>", "x", " "])))
def test_only_the_six_tags_in_order_are_valid(pieces: list[str]):
    tags = [piece for piece in pieces if piece.startswith("<")]
    outside = "".join(pieces[: pieces.index("<caption>")]) if "<caption>" in pieces else ""
    response = parse_response("".join(pieces))
    if response.is_valid:
        assert tags == ["<caption>", "</caption>", "<think>", "</think>", "<answer>", "</answer>"]
        assert not outside.strip()


def redecoded_offsets(tokenizer: Tokenizer, text: str) -> list[tuple[int, int]]:
    """Which characters each token helps to write, by decoding every prefix of the tokens anew."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    lengths = []
    for count in range(len(ids) + 1):
        decoded = tokenizer.decode(ids[:count], skip_special_tokens=False)
        lengths.append(next((i for i, (a, b) in enumerate(zip(decoded, text, strict=False)) if a != b), len(decoded)))
    return [(start, max(end, start + 1)) for start, end in pairwise(lengths)]


def naive_span(span: tuple[int, int], offsets: list[tuple[int, int]]) -> tuple[int, int]:
    inside = [index for index, (start, end) in enumerate(offsets) if start < span[1] and end > span[0]]
    return inside[0], inside[-1] + 1


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(Path(prism.__file__).parent / "assets" / "tiny-base" / "tokenizer.json"))


words = st.text(alphabet=st.sampled_from("ab <>/\n.01é三\U0001f600"), max_size=20).map(lambda text: f"a{text}b")


@given(words, words, words, st.sampled_from(["", " ", "\n\n"]))
def test_token_spans_equal_those_of_redecoding(tokenizer: Tokenizer, caption: str, think: str, answer: str, gap: str):
    text = f"<caption>{caption}</caption>{gap}<think>\n{think} </think>{gap}<answer>{answer}</answer>"
    response = parse_response(text)
    offsets = tokenizer.encode(text, add_special_tokens=False).offsets
    redecoded = redecoded_offsets(tokenizer, text)
    assert response.caption_span and response.think_span and response.answer_span
    spans = (response.caption_span, response.think_span, response.answer_span)
    assert token_spans(response, offsets) == TokenSpans(*(naive_span(span, redecoded) for span in spans))


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        ((0, 3), (0, 2)),
        ((3, 4), (1, 2)),  # within one token
        ((2, 6), (1, 4)),
        ((5, 6), (2, 4)),  # one character, two tokens
        ((4, 4), (2, 2)),
        ((6, 9), (4, 5)),
    ],
)
def test_token_span_by_hand(span: tuple[int, int], expected: tuple[int, int]):
    assert token_span(span, [(0, 2), (2, 4), (4, 6), (5, 6), (6, 9)]) == expected


def test_an_invalid_response_has_no_token_spans():
    assert token_spans(parse_response("red"), [(0, 3)]) is None
