"""Whatever a policy writes, a verdict comes back: in time, without an exception, in bounded memory."""

import gc
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prism.rewards import verify_answer
from prism.rewards.answer import MAX_ANSWER_CHARS
from prism.rewards.symbolic import SymbolicChecker, SymbolicResult

GOLDEN = Path(__file__).parents[2] / "golden"
CHUNK = 500
"""Hypothesis remembers the examples of one run, which would hide whether the verifier's memory grows."""
SLACK_SECONDS = 2.0
"""For killing a worker and for starting the next one."""

BOMBS = (
    "9^9^9^9", "9^{9^{9^{9}}}", "2^{2^{2^{2^{2^{2}}}}}", "1000000000!", "(10^9)!!", r"10^{10^{10}}", "1e999999999",
    "1e-999999999", r"\sum_{n=1}^{10^9} n", r"\prod_{n=1}^{999999} n", r"\int_0^1 e^{e^{e^{x}}} dx",
    "(x+y+z+1)^{9999}", r"\binom{10^9}{10^8}", r"\sqrt[10^9]{10^{10^9}}", r"\frac{1}{0}", r"\frac{1}{10^{-999}}",
    "0^0", "0^{-1}", r"\log 0", r"\tan 90^\circ", r"\lim_{x\to 0} \frac{\sin x}{x}", "x=x=x=x", "10^10^10",
    r"\begin{pmatrix}1&2\\3\end{pmatrix}",
)  # fmt: skip
PIECES = (
    r"\frac{", r"\frac", r"\sqrt{", r"\sqrt[3]{", r"\left(", r"\right)", r"\text{", r"\mathrm{", r"\boxed{",
    r"\begin{cases}", r"\begin{pmatrix}", r"\end{pmatrix}", r"\\", r"\pm ", r"\le ", r"\infty", r"\cdot ", r"\pi",
    r"\circ", r"\overline{", "\\", "{", "}", "(", ")", "[", "]", "|", "^", "_", "$", "$$", "%", "°", "'", '"', "&",
    "=", "<", ">", ",", ";", ":", ".", "...", "/", "*", "**", "+", "-", "!", "~", " ", "\n", "\t", "\0", "0", "1",
    "9", "99999999999999999999", "1,000", "1 000", ".5", "e9", "x", "y", "i", "A", "(B)", "C.", "or ", " and ",
    "not ", "to ", "the answer is ", "answer: ", "because ", "it is ", "yes", "no", "kg", " m/s^2", "°C", "hours ",
    "half past ", "January ", "one ", "hundred ", "third ", "一", "百", "万", "分之", "点", "选", "不", "①", "½", "²",
    "₁", "√", "π", "≤", "∈", "∪", "五", "\u202e", "\u200b", "\ufeff", "\U0001f600", "\u0301", "\ud800", "\udfff",
    "\ue000", "ﷺ", "㎏", "<answer>", "</think>", "0x", "__import__('os')", "#### ", "x**", "//", "->", "=>",
)  # fmt: skip

pairs = [line.split("\t") for line in (GOLDEN / "answer_pairs.tsv").read_text("utf-8").splitlines()]
_any_character = st.characters(exclude_categories=())
_soup = st.lists(st.sampled_from(PIECES) | st.sampled_from(BOMBS), max_size=12).map("".join)
_repeated = st.tuples(st.sampled_from(PIECES), st.integers(1, MAX_ANSWER_CHARS)).map(
    lambda pair: (pair[0] * pair[1])[:MAX_ANSWER_CHARS]
)
_nested = st.tuples(st.sampled_from(["()", "[]", "{}"]), st.integers(1, 990)).map(
    lambda pair: pair[0][0] * pair[1] + "x" + pair[0][1] * pair[1]
)
_labelled = st.sampled_from(sorted({text for row in pairs for text in row[2:4]}))
_mangled = st.builds(
    lambda text, place, piece: text[: place % (len(text) + 1)] + piece + text[place % (len(text) + 1) :],
    _labelled, st.integers(0, 99), st.sampled_from(PIECES) | st.sampled_from(BOMBS),
)  # fmt: skip
_plain = st.text(_any_character, max_size=60) | _soup | _mangled | _labelled
_hostile = _plain | _repeated | _nested | st.sampled_from(BOMBS) | st.text(_any_character, min_size=1900, max_size=2100)


class NoAlgebra(SymbolicChecker):
    def check(self, *_: object, **__: object) -> SymbolicResult:
        return SymbolicResult.ERROR


@dataclass
class Record:
    """What the calls of one run took."""

    verdicts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    parent_bytes: list[int] = field(default_factory=list)
    worker_bytes: list[int] = field(default_factory=list)


def resident_bytes(process_id: int) -> int | None:
    """None where there is no /proc."""
    try:
        pages = Path(f"/proc/{process_id}/statm").read_text().split()[1]
    except OSError:
        return None
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def verify_hostile(num_examples: int, timeout_seconds: float) -> Record:
    record = Record()
    checker = SymbolicChecker(timeout_seconds)

    @settings(
        max_examples=min(num_examples, CHUNK),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(_hostile, _hostile, st.none() | st.lists(_plain, min_size=1, max_size=6))
    def run(prediction: str, ground_truth: str, choices: list[str] | None) -> None:
        started = time.monotonic()
        verdict = verify_answer(prediction, ground_truth, choices=choices, checker=checker)
        record.slowest = max(record.slowest, time.monotonic() - started)
        record.verdicts[f"{verdict}, {verdict.rule}"] += 1
        assert time.monotonic() - started < timeout_seconds + SLACK_SECONDS
        worker = resident_bytes(checker.worker_process_id) if checker.worker_process_id else None
        parent = resident_bytes(os.getpid())
        record.worker_bytes += [worker] if worker else []
        record.parent_bytes += [parent] if parent else []

    for _ in range(-(-num_examples // CHUNK)):
        run()
    checker.close()
    return record


def assert_flat(sizes: list[int], allowed_growth: int) -> None:
    """After the first fifth, in which caches fill, memory does not grow by more than `allowed_growth`."""
    warm = sizes[len(sizes) // 5 :]
    if warm:
        assert max(warm) - warm[0] < allowed_growth


def test_a_hundred_hostile_answers():
    record = verify_hostile(100, timeout_seconds=0.3)
    assert sum(record.verdicts.values()) >= 100


@pytest.mark.slow
def test_ten_thousand_hostile_answers(capsys: pytest.CaptureFixture[str]):
    record = verify_hostile(10_000, timeout_seconds=1.0)
    with capsys.disabled():
        print(f"\nslowest call {record.slowest:.2f} s; {dict(record.verdicts.most_common())}")
        for name, sizes in (("parent", record.parent_bytes), ("worker", record.worker_bytes)):
            if sizes:
                after_a_fifth, most = sizes[len(sizes) // 5] / 2**20, max(sizes) / 2**20
                print(f"{name}: {after_a_fifth:.0f} MiB after a fifth, {most:.0f} MiB at most")
    assert_flat(record.parent_bytes, 32 * 2**20)
    assert_flat(record.worker_bytes, 64 * 2**20)


@pytest.fixture
def _nothing_is_collected() -> Iterator[None]:
    """A collection of all that other tests have left behind takes longer than what is measured."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_nothing_is_collected")
@pytest.mark.parametrize("piece", PIECES)
def test_time_is_linear_in_the_length(piece: str):
    """Two thousand characters of anything take a small fraction of a second without the slow path."""
    for text in ((piece * MAX_ANSWER_CHARS)[:MAX_ANSWER_CHARS], ("1" + piece) * 300, (piece + " a") * 300):
        for ground_truth in ("5", "B", "(1,2)", "yes", "5 kg", text[::-1]):
            started = time.process_time()
            verify_answer(text, ground_truth[:MAX_ANSWER_CHARS], checker=NoAlgebra())
            assert time.process_time() - started < 0.25
