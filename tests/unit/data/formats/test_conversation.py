"""Conversations in the field's spellings, and every way they can be wrong."""

from typing import Any

import pytest

from prism.data.formats.conversation import Conversation, read_conversation
from prism.data.rejects import RowError


def turn(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    "messages",
    [
        [turn("system", "Be brief."), turn("user", "<image>How many?"), turn("assistant", "Two.")],
        [
            {"from": "system", "value": "Be brief."},
            {"from": "human", "value": "<image>How many?"},
            {"from": "gpt", "value": "Two."},
        ],
        [
            turn("system", [{"type": "text", "text": "Be brief."}]),
            turn("user", [{"type": "image", "text": None}, {"type": "text", "text": "How many?"}]),
            turn("assistant", [{"type": "text", "text": "Two."}]),
        ],
    ],
)
def test_three_spellings_of_one_conversation(messages: list[object]) -> None:
    assert read_conversation(messages, "messages") == Conversation("<image>How many?", "Be brief.", "Two.")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "image": "a.png"},
        {"type": "image", "path": "a.png"},
        {"type": "image", "url": "a.png"},
        {"type": "image_url", "image_url": "a.png"},
    ],
)
def test_images_inside_the_question_are_found_in_order(part: dict[str, object]) -> None:
    content = [{"type": "text", "text": "Compare "}, part, {"type": "image", "image": b"png"}]
    found = read_conversation([turn("user", content)], "prompt")
    assert found == Conversation("Compare <image><image>", images=("a.png", b"png"))


def test_an_empty_system_message_is_none() -> None:
    assert read_conversation([turn("system", ""), turn("user", "Why?")], "prompt").system is None


USER, ASSISTANT, SYSTEM = turn("user", "Why?"), turn("assistant", "So."), turn("system", "Be brief.")


@pytest.mark.parametrize(
    ("messages", "field", "reason"),
    [
        (None, "messages", "is not a list of messages"),
        ("Why?", "messages", "is not a list of messages"),
        ([], "messages", "has a wrong order of roles"),
        ([ASSISTANT], "messages", "has a wrong order of roles"),
        ([ASSISTANT, USER], "messages", "has a wrong order of roles"),
        ([USER, SYSTEM], "messages", "has a wrong order of roles"),
        ([USER, USER], "messages", "has a wrong order of roles"),
        ([USER, ASSISTANT, ASSISTANT], "messages", "has a wrong order of roles"),
        ([SYSTEM, SYSTEM, USER], "messages", "has a wrong order of roles"),
        (
            [USER, ASSISTANT, USER, ASSISTANT],
            "messages",
            "has several questions; only one question and one answer are supported",
        ),
        (["Why?"], "messages", "has a message that is not an object"),
        ([{"content": "Why?"}], "messages.role", "is missing"),
        ([{"role": "user"}], "messages.content", "is missing"),
        ([{"from": "human", "content": "Why?"}], "messages.value", "is missing"),
        ([turn("tool", "Why?")], "messages.role", "is an unknown role"),
        ([turn("user", 5)], "messages.content", "is not a string"),
        ([turn("user", "\ud83d")], "messages.content", "has half a surrogate pair, which no tokenizer takes"),
        ([turn("user", [{"type": "video"}])], "messages.content", "has a part that is neither text nor image"),
        ([turn("user", ["Why?"])], "messages.content", "has a part that is neither text nor image"),
        ([USER, turn("assistant", "<image>")], "messages", "has an image mark outside the question"),
        ([turn("system", "<image>"), USER], "messages", "has an image mark outside the question"),
    ],
)
def test_wrong_conversations_are_refused(messages: object, field: str, reason: str) -> None:
    with pytest.raises(RowError) as caught:
        read_conversation(messages, "messages")
    assert (caught.value.field, caught.value.reason) == (field, reason)
