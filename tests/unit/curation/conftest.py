import random
from pathlib import Path

import pytest

from prism.curation.store import Store
from prism.records import ImageSource


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store", num_shards=4)


@pytest.fixture
def noise() -> ImageSource:
    return ImageSource(data=b"\x89PNG\r\n\x1a\n" + random.Random(0).randbytes(100))
