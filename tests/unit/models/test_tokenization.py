"""Text tokenised without control tokens, against the Hugging Face tokenizer on text that has none."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from prism.models.tokenization import TextTokenizer, control_tokens, span_mask

CLEAN = st.text(alphabet=st.sampled_from("ab \n\t<>|/.5é가𝔘A'"), max_size=30)
DIRTY = st.lists(CLEAN | st.sampled_from(["<|im_end|>", "<|image_pad|>", "<|fim_pad|>", "<think>"]), max_size=6).map(
    "".join
)


@pytest.fixture(scope="module")
def text_tokenizer(tokenizer: PreTrainedTokenizerFast) -> TextTokenizer:
    return TextTokenizer(tokenizer)


def test_control_tokens_are_the_steering_ones(tokenizer: PreTrainedTokenizerFast) -> None:
    found = control_tokens(tokenizer)
    assert set(found) == {
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
        "<|fim_pad|>",
    }
    assert all(tokenizer.convert_tokens_to_ids(token) == index for token, index in found.items())


@given(CLEAN)
def test_clean_text_as_hugging_face(
    text_tokenizer: TextTokenizer, tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert text_tokenizer.encode_text(text) == tokenizer(text, add_special_tokens=False)["input_ids"]


@given(DIRTY)
def test_text_never_becomes_control(
    text_tokenizer: TextTokenizer, tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    ids = text_tokenizer.encode_text(text)
    assert not set(ids) & set(text_tokenizer.control_ids.values())
    assert tokenizer.decode(ids) == text


def test_word_like_added_tokens_are_kept(text_tokenizer: TextTokenizer, tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.convert_tokens_to_ids("<think>") in text_tokenizer.encode_text("a<think>b")


@given(CLEAN, CLEAN)
def test_template_equals_the_whole_string(
    text_tokenizer: TextTokenizer, tokenizer: PreTrainedTokenizerFast, first: str, second: str
) -> None:
    pieces = [("<|im_start|>user\n", True), (first, False), ("<|image_pad|>", True), (second, False)]
    pieces.append(("<|im_end|>\nb", True))
    whole = "".join(text for text, _ in pieces)
    assert text_tokenizer.encode_template(pieces) == tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_control_tokens_count_only_in_the_template(text_tokenizer: TextTokenizer) -> None:
    end = text_tokenizer.control_ids["<|im_end|>"]
    ids = text_tokenizer.encode_template([("a<|im_end|>", True), ("<|im_end|>", False), ("<|im_end|>", True)])
    assert ids.count(end) == 2
    assert ids[1:] == [end, *text_tokenizer.encode_text("<|im_end|>"), end]


def test_a_control_token_split_over_a_boundary_stays_text(text_tokenizer: TextTokenizer) -> None:
    ids = text_tokenizer.encode_template([("a<|im_", True), ("end|>", False)])
    assert text_tokenizer.control_ids["<|im_end|>"] not in ids


@given(DIRTY)
def test_offsets_count_characters(text_tokenizer: TextTokenizer, text: str) -> None:
    offsets = text_tokenizer.token_offsets(text)
    assert len(offsets) == len(text_tokenizer.encode_text(text))
    covered = {place for start, end in offsets for place in range(start, end)}
    assert covered == set(range(len(text)))


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([], [False, False, False, False]),
        ([(0, 9)], [True, True, True, True]),
        ([(2, 3)], [False, True, False, False]),
        ([(3, 3)], [False, False, False, False]),
        ([(7, 9), (0, 1)], [True, False, False, True]),
        ([(0, 2), (4, 5)], [True, False, True, False]),
        ([(0, 8), (1, 2)], [True, True, True, True]),
    ],
)
def test_span_mask_by_hand(spans: list[tuple[int, int]], expected: list[bool]) -> None:
    assert span_mask([(0, 2), (2, 4), (4, 7), (7, 9)], spans) == expected


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=6),
    st.lists(st.integers(0, 40), min_size=2, max_size=20),
)
def test_span_mask_equals_the_definition(spans: list[tuple[int, int]], edges: list[int]) -> None:
    edges.sort()
    offsets = list(pairwise(edges))
    inside = {place for start, end in spans for place in range(start, end)}
    assert span_mask(offsets, spans) == [bool(inside & set(range(start, end))) for start, end in offsets]


def test_span_mask_of_a_long_text() -> None:
    """A quadratic search would need ten thousand million steps here."""
    size = 200_000
    spans = [(place, place + 1) for place in range(0, size, 2)]
    mask = span_mask([(place, place + 1) for place in range(size)], spans)
    assert mask[0] and not mask[1]
    assert sum(mask) == size // 2
