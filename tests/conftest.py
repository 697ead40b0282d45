"""One thread unless the caller says otherwise: the tests' models are so small that a second one costs time."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
