"""Processes in several layouts that go on from each other's checkpoints, against one process that does it all."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .conftest import Program, listening
from .test_distributed import mixed_rows

PROGRAM = Path(__file__).with_name("sharded_training.py")
TOLERANCE = 1e-9
ADAPTERS = "lora={rank=2}"


@dataclass(frozen=True)
class Training:
    """A directory to train in, from where the last processes there stopped."""

    train: Program
    directory: Path

    def go_on(self, num_processes: int, last_step: int, *overrides: str) -> "Training":
        assert self.train(self.directory, num_processes, last_step, *overrides) == [""] * num_processes
        return self

    def copied(self, name: str) -> "Training":
        return replace(self, directory=shutil.copytree(self.directory, self.directory.with_name(name)))

    @property
    def checkpoint(self) -> Path:
        [path] = (self.directory / "checkpoints").iterdir()
        return path

    def read(self, name: str) -> list:
        return json.loads((self.directory / name).read_text())


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Has processes train, and tells what each of them ended with."""
    recipe = tmp_path_factory.mktemp("rows") / "recipe.toml"
    recipe.write_text(f'name = "rows"\nmax_prompt_tokens = 160\n{mixed_rows(recipe.parent / "data")}')
    with listening(PROGRAM) as program:

        def give_order(directory: Path, num_processes: int, last_step: int, *overrides: str) -> list[str]:
            order = {"directory": str(directory), "num_processes": num_processes, "last_step": last_step}
            return program(recipe=str(recipe), overrides=overrides, **order)

        yield give_order


@pytest.fixture
def fresh(train: Program, tmp_path: Path) -> Training:
    return Training(train, tmp_path / "fresh")


@pytest.fixture(scope="module")
def hybrid(train: Program, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """Two steps by four processes, two copies of two shards each."""
    return Training(train, tmp_path_factory.mktemp("hybrid") / "hybrid").go_on(4, 2, "fsdp_size=2")


def assert_same(one: Training, other: Training) -> None:
    """Losses and gradient norms of all steps, the last step's gradients, weights, and those given to a sampler."""
    pairs = zip(one.read("metrics.json"), other.read("metrics.json"), strict=True)
    assert all(theirs == pytest.approx(ours, abs=TOLERANCE, rel=TOLERANCE) for ours, theirs in pairs)
    ours, theirs = (load_file(training.directory / "result.safetensors") for training in (one, other))
    assert ours.keys() == theirs.keys()
    assert {name.partition("/")[0] for name in ours} == {"weight", "gradient", "copy"}
    for name, tensor in ours.items():
        assert tensor.dtype == torch.float64
        assert theirs[name].allclose(tensor, rtol=0, atol=TOLERANCE), name


def test_copies_of_shards_compute_what_one_process_does(fresh: Training, hybrid: Training) -> None:
    assert_same(fresh.go_on(1, 2), hybrid)


def test_any_layout_goes_on_from_any_other(fresh: Training, hybrid: Training) -> None:
    """Four processes with two copies, then two with one copy, then one."""
    changing = hybrid.copied("changing").go_on(2, 3)
    assert len(list(changing.checkpoint.glob("module-policy-*"))) == 2
    assert_same(fresh.go_on(1, 4), changing.go_on(1, 4))


def test_what_processes_hold_alike_is_written_once_and_shared_out(hybrid: Training) -> None:
    names = ("module-policy", "optimizer-policy")
    sizes = {name: [file.stat().st_size for file in sorted(hybrid.checkpoint.glob(f"{name}-*"))] for name in names}
    weights = load_file(hybrid.directory / "result.safetensors")
    total = sum(tensor.nbytes for name, tensor in weights.items() if name.startswith("weight/"))
    assert len(sizes["module-policy"]) == len(sizes["optimizer-policy"]) == 4
    assert total < sum(sizes["module-policy"]) < 1.5 * total
    assert max(sizes["optimizer-policy"]) < 0.4 * sum(sizes["optimizer-policy"])


def test_one_process_without_room_ends_all_and_leaves_no_checkpoint(hybrid: Training) -> None:
    said = hybrid.read("refused.json")
    assert len(said) == 4 and len(set(said)) == 1
    assert "step-000003" in said[0] and "free some space" in said[0]
    assert hybrid.checkpoint.name == "step-000002"


def test_what_one_process_finds_damaged_ends_all(hybrid: Training) -> None:
    damaged = hybrid.copied("damaged")
    file = damaged.checkpoint / "optimizer-policy-00003.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    line = f"checkpoint file {file} is damaged: its content has changed; restore it, or delete "
    said = damaged.train(damaged.directory, 2, 3)
    assert len(said) == 2 and all(one.startswith(line) for one in said)
    assert damaged.checkpoint.name == "step-000002"


def test_copies_must_come_out_even(fresh: Training) -> None:
    [said, _, _] = fresh.train(fresh.directory, 3, 1, "fsdp_size=2")
    assert said.startswith("fsdp_size: 2 does not divide the number of processes, 3: give one of 1, 3, or leave it out")


def test_adapters_go_on_too(fresh: Training, tmp_path: Path) -> None:
    """They are whole in every process."""
    changing = replace(fresh, directory=tmp_path / "changing").go_on(2, 1, ADAPTERS).go_on(1, 2, ADAPTERS)
    assert_same(fresh.go_on(1, 2, ADAPTERS), changing)
