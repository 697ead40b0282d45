"""Which changes make another problem of a prompt, and which do not."""

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from prism.data.identity import content_hash
from prism.errors import DataError
from prism.records import ImageSource, Prompt


def encoded(colour: str, level: int = 6) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (16, 12), colour).save(stream, "PNG", compress_level=level)
    return stream.getvalue()


RED, BLUE = ImageSource(data=encoded("red")), ImageSource(data=encoded("blue"))
PROMPT = Prompt("1", "<image><image>Which?", (RED, BLUE), "left", choices=("left", "right"), system="Be brief.")


@pytest.mark.parametrize(
    "changes",
    [
        {"question": "<image><image>Which one?"},
        {"images": (BLUE, RED)},
        {"images": (RED, RED)},
        {"choices": ("right", "left")},
        {"system": None},
    ],
)
def test_what_the_model_is_shown_counts(changes: dict[str, object]) -> None:
    assert content_hash(replace(PROMPT, **changes)) != content_hash(PROMPT)


def test_how_it_is_stored_and_named_does_not(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(encoded("red", level=0))
    other = replace(
        PROMPT,
        id="2",
        answer="right",
        kind="k",
        images=(ImageSource(path=tmp_path / "red.png"), BLUE),
        metadata={"a": 1},
    )
    assert content_hash(other) == content_hash(PROMPT)


def test_a_lost_image_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lost\.png"):
        content_hash(replace(PROMPT, images=(ImageSource(path=tmp_path / "lost.png"), BLUE)))
