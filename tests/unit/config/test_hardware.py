from pathlib import Path

import pytest

from prism.config import DEVICES, load_hardware
from prism.errors import ConfigError

FILE = """
name = "mine"
ranks = 2
memory_gib = 16.0
tflops = { float32 = 0.1, bfloat16 = 0.2 }
memory_gb_s = 20.0
link_gb_s = 1.0
price = 0.5
"""


@pytest.mark.parametrize(
    ("name", "ranks", "per_node", "nodes"),
    [("h100", 1, 1, 1), ("8xh100", 8, 8, 1), ("8XH100", 8, 8, 1), ("4x8xh200", 32, 8, 4), ("2xa100-40gb", 2, 2, 1)],
)
def test_names(name: str, ranks: int, per_node: int, nodes: int) -> None:
    found = load_hardware(name)
    assert (found.ranks, found.ranks_per_node, found.num_nodes) == (ranks, per_node, nodes)


@pytest.mark.parametrize("device", sorted(DEVICES))
def test_every_device_is_whole(device: str) -> None:
    found = load_hardware(device)
    assert 0 < found.usable_bytes < found.memory_gib * 2**30
    assert found.tflops.bfloat16 > found.tflops.float32
    assert found.price is None


@pytest.mark.parametrize("name", ["", "h1000", "0xh100", "2x2x2xh100", "8x", "xh100", "h100x8"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^--hardware .*no such device.*write it as in 8xh100"):
        load_hardware(name)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FILE)
    found = load_hardware(str(path))
    assert (found.name, found.ranks, found.price) == ("mine", 2, 0.5)
    assert load_hardware(str(path), price=2.0).price == 2
    path.write_text(FILE + "memory_gb = 16.0")
    with pytest.raises(ConfigError, match="unknown key memory_gb; did you mean memory_g"):
        load_hardware(str(path))
    path.write_text(FILE + "matmul_share = 1.5")
    with pytest.raises(ConfigError, match="matmul_share"):
        load_hardware(str(path))
