"""What `gpu_update.py` has measured: how much of a device is used, and how memory grows with the targets."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from prism.config import load_hardware
from prism.config.hardware import DEVICES
from prism.planning.work import FLOAT

GIB = 2**30
MOST_GROWTH = 0.5
"""What logits of all targets would add in bfloat16 alone, as a share of one copy of them in float32."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of every run over one pack, what each has to compute, and what is asked of it."""

    name: str
    tokens: int
    flops: float
    seconds: Sequence[float]
    asked: str

    def utilisation(self, rate: float) -> float:
        """Of a device of `rate` FLOPs a second."""
        return self.flops / statistics.median(self.seconds) / rate

    def row(self, rate: float, nominal: float | None) -> str:
        median, used = statistics.median(self.seconds), self.utilisation(rate)
        spread = f"{median:.4g} s ({min(self.seconds):.4g} to {max(self.seconds):.4g})"
        of_sheet = "–" if nominal is None else f"{self.utilisation(nominal):.1%}"
        cells = [self.name, f"{self.tokens:,}", f"{self.flops / 1e12:.4g}", spread, f"{used:.1%}", of_sheet]
        return f"| {' | '.join([*cells, f'{1 / used:.2f}', self.asked])} |"


@dataclass(frozen=True, slots=True)
class LogitMemory:
    """Bytes over a smaller and a larger pack: the peak above what stays between passes, and the peak above what exists
    when the output layer is first called, which is logits unless something later takes more."""

    name: str
    vocabulary: int
    targets: Sequence[int]
    peaks: Sequence[int]
    rises: Sequence[int]

    @property
    def full(self) -> list[int]:
        """Bytes of float32 logits of all targets."""
        return [FLOAT * self.vocabulary * count for count in self.targets]

    @property
    def growth(self) -> float:
        """How much more memory rises by in the larger pack, as a share of the float32 logits of the targets that it has
        more."""
        return (self.rises[1] - self.rises[0]) / (self.full[1] - self.full[0])

    @property
    def is_chunked(self) -> bool:
        return self.growth <= MOST_GROWTH

    def rows(self) -> Iterator[str]:
        for count, *sizes in zip(self.targets, self.full, self.peaks, self.rises, strict=True):
            yield f"| {' | '.join([self.name, f'{count:,}', *(f'{size / GIB:.4g}' for size in sizes)])} | |"
        yield f"| growth | {self.targets[1] - self.targets[0]:,} | | | | {self.growth:.0%} |"


@dataclass(frozen=True, slots=True)
class Report:
    rate: float
    """FLOPs a second of large matrix products, measured."""
    nominal: float | None
    """The same by the data sheet."""
    num_parameters: int
    """Of the policy."""
    timings: Sequence[Timing]
    logits: Sequence[LogitMemory]

    def table(self) -> str:
        sheet = "unknown" if self.nominal is None else f"{self.nominal / 1e12:.0f} TFLOP/s"
        return "\n".join(
            [
                f"large matrix products: {self.rate / 1e12:.4g} TFLOP/s measured, data sheet {sheet}",
                f"{self.num_parameters:,} parameters of the policy, their gradients and AdamW's two moments, all in "
                f"float32: {4 * FLOAT * self.num_parameters / GIB:.4g} GiB",
                "",
                "| | tokens | TFLOP | time | of measured products | of the data sheet | time over products' | asked |",
                "| --- | --- | --- | --- | --- | --- | --- | --- |",
                *(timing.row(self.rate, self.nominal) for timing in self.timings),
                "",
                "| GiB | targets | float32 logits of all | peak above what stays | above what precedes them | growth |",
                "| --- | --- | --- | --- | --- | --- |",
                *(row for found in self.logits for row in found.rows()),
            ]
        )

    def problems(self) -> list[str]:
        """What shows that the figures cannot be right, or that logits exist for all targets at once."""
        used = {timing.name: timing.utilisation(self.rate) for timing in self.timings}
        found = [f"{name}: utilisation {share:.3g}" for name, share in used.items() if not 0 < share < 1.5]
        return found + [f"{one.name}: logits of all targets exist at once" for one in self.logits if not one.is_chunked]


def nominal_rate(device_name: str) -> float | None:
    """The data sheet's bfloat16 FLOPs a second by the name that the driver tells; None of a device that `prism plan`
    does not know, or of a form (PCIe, NVL, a part) that may be slower than the one it knows."""
    words = device_name.lower().replace("-", " ").split()
    names = {*words, *(first + second for first, second in pairwise(words))}
    if {"pcie", "nvl", "mig"} & names:
        return None
    found = {key for key in DEVICES if key.split("-")[0] in names}
    return max((load_hardware(key).tflops.bfloat16 * 1e12 for key in found), default=None)
