"""What a row must fit that only some recipes ask for; the other budgets are tested with whole runs of bad input."""

import io

import pytest
from PIL import Image

from prism.data.decoding import decode
from prism.data.rejects import RowError
from prism.models import PromptEncoder
from prism.records import ImageSource, Prompt
from prism.stages.row_check import RowCheck


def test_more_images_than_the_engine_takes_cost_a_row(encoder: PromptEncoder) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, "PNG")
    image = ImageSource(data=stream.getvalue())
    one, two = (Prompt("p", "What is there?", (image,) * count) for count in (1, 2))
    RowCheck(encoder, 200, max_images=1)(one, decode(one.images))
    RowCheck(encoder, 200)(two, decode(two.images))
    with pytest.raises(RowError, match=r"images are more than rollout\.max_images \(2 > 1\)"):
        RowCheck(encoder, 200, max_images=1)(two, decode(two.images))
