"""The machine that `prism plan` plans for: one of a few well-known accelerators by name, or a file."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from prism.config.base import Config, Count, NonNegative, Positive
from prism.config.loading import build_config, read_table
from prism.config.wording import printable, suggest
from prism.errors import ConfigError

Share = Annotated[float, Field(gt=0, le=1)]


class MatmulSpeed(Config):
    """The largest speed of matrix products in 10¹² floating-point operations a second, by precision."""

    float32: Positive
    bfloat16: Positive


class Hardware(Config):
    """`ranks` equal devices with a process each, `ranks_per_node` of them in one machine.

    Speeds are the data sheet's, or measured, with shares of 1: `tflops` of matrix products, `memory_gb_s` of a device's
    memory, `link_gb_s` between devices of a machine and `node_link_gb_s` between machines, per device and direction.
    What is reached of them are the shares: `matmul_share`, `attention_share` (attention with a mask), `memory_share`,
    `link_share`. `operation_us` is what starting one operation takes; where devices work asynchronously it shows only
    if operations are shorter than that. `sampler_step_ms` is what vLLM needs for a token besides computing it.
    `usable_share` of `memory_gib` is there for tensors. `price` is per device and hour.
    """

    name: str
    ranks: Count = 1
    ranks_per_node: Count = 8
    memory_gib: Positive
    tflops: MatmulSpeed
    memory_gb_s: Positive
    link_gb_s: Positive
    node_link_gb_s: Positive = 50.0
    matmul_share: Share = 0.6
    attention_share: Share = 0.25
    memory_share: Share = 0.75
    link_share: Share = 0.6
    operation_us: NonNegative = 5.0
    is_asynchronous: bool = True
    sampler_step_ms: NonNegative = 5.0
    usable_share: Share = 0.9
    price: NonNegative | None = None
    currency: str = "$"

    @property
    def usable_bytes(self) -> float:
        return self.memory_gib * self.usable_share * 2**30

    @property
    def num_nodes(self) -> int:
        return -(-self.ranks // self.ranks_per_node)

    @property
    def rank_link_gb_s(self) -> float:
        """The slowest link on the way around all ranks."""
        return self.link_gb_s if self.num_nodes == 1 else min(self.link_gb_s, self.node_link_gb_s)


def _device(memory_gib: float, bfloat16: float, float32: float, memory_gb_s: float, link_gb_s: float) -> dict[str, Any]:
    return {
        "memory_gib": memory_gib,
        "tflops": {"bfloat16": bfloat16, "float32": float32},
        "memory_gb_s": memory_gb_s,
        "link_gb_s": link_gb_s,
    }


DEVICES = {
    "a100-40gb": _device(39.5, 312, 19.5, 1555, 300),
    "a100-80gb": _device(79.1, 312, 19.5, 2039, 300),
    "h100": _device(79.2, 989, 67, 3350, 450),
    "h200": _device(139.8, 989, 67, 4800, 450),
    "l40s": _device(44.4, 362, 91.6, 864, 32),
    "rtx4090": _device(23.5, 165, 82.6, 1008, 32),
}
"""Makers' data sheets: dense products with float32 sums, the SXM form where there are several, PCIe where there is no
NVLink; memory as the driver reports it."""

_NAME = re.compile(r"(?:([1-9]\d*)x)?(?:([1-9]\d*)x)?([a-z][a-z0-9-]*)")


def load_hardware(source: str, *, price: float | None = None) -> Hardware:
    """`8xh100`, `4x8xh100` for four machines of eight, or the path of a TOML file with the fields of `Hardware`.

    `price` (per device and hour) replaces the one of the file. Raises ConfigError for what is neither.
    """
    is_file = source.endswith((".toml", ".json")) or "/" in source
    table = read_table(Path(source)) if is_file else _named(source)
    if price is not None:
        table = table | {"price": price}
    return build_config(Hardware, table, (), source=source if is_file else "--hardware")


def _named(source: str) -> dict[str, Any]:
    found = _NAME.fullmatch(source.lower())
    device = found[3] if found else source
    if found is None or device not in DEVICES:
        raise ConfigError(
            f"--hardware {printable(source)}: no such device{printable(suggest(device, sorted(DEVICES)))}; write it as "
            "in 8xh100, or 4x8xh100 for four machines of eight, or name a TOML file"
        )
    outer, inner = (int(found[group] or 1) for group in (1, 2))
    return {"name": source.lower(), "ranks": outer * inner, "ranks_per_node": inner if found[2] else outer} | DEVICES[
        device
    ]
