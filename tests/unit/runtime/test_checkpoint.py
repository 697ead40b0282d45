import copy
import os
import random
import resource
import signal

import pytest
import torch
from torch import nn

from prism.errors import CheckpointError, StorageError
from prism.runtime.checkpoint import (
    checkpoint_step,
    list_checkpoints,
    load_latest,
    load_modules,
    save_checkpoint,
)
from prism.runtime.generators import generator, restore_rng_state, seed_globals
from prism.runtime.optimizer import make_optimizer, make_schedule

# Newer Pythons warn of fork beside threads; the children here only write files and leave.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


class Trainer:
    """A small model with tied weights, dropout, a frozen part and two dtypes, trained on random data."""

    def __init__(self, width: int = 4) -> None:
        rng = generator("init", width)
        embed, head = nn.Embedding(7, width), nn.Linear(width, 7, bias=True)
        head.weight = embed.weight
        frozen = nn.Linear(width, width).bfloat16().requires_grad_(False)
        self.model = nn.ModuleDict({"embed": embed, "norm": nn.BatchNorm1d(width), "frozen": frozen, "head": head})
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=rng))
        self.optimizer = make_optimizer(self.model, learning_rate=0.01, weight_decay=0.1, betas=(0.9, 0.95))
        self.schedule = make_schedule(self.optimizer, kind="cosine", num_steps=20, warmup_fraction=0.1)

    def step(self) -> None:
        ids = torch.randint(7, (16,))
        hidden = torch.dropout(self.model["norm"](self.model["embed"](ids)), 0.3, train=True)
        hidden = hidden + self.model["frozen"](hidden.bfloat16()).float()
        loss = nn.functional.cross_entropy(self.model["head"](hidden), ids)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()

    def parts(self) -> dict:
        return {
            "modules": {"policy": self.model},
            "optimizers": {"policy": self.optimizer},
            "schedulers": {"policy": self.schedule},
        }


def _bytes(tree) -> list:
    """Every tensor of a nested state as raw bytes, everything else as it is."""
    if isinstance(tree, torch.Tensor):
        return [str(tree.dtype), tuple(tree.shape), tree.contiguous().view(-1).view(torch.uint8).numpy().tobytes()]
    if isinstance(tree, dict):
        return [(key, _bytes(value)) for key, value in tree.items()]
    if isinstance(tree, list | tuple):
        return [type(tree).__name__, *(_bytes(value) for value in tree)]
    return [type(tree).__name__, tree]


def _full_state(trainer: Trainer) -> list:
    states = (trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.schedule.state_dict())
    return [_bytes(dict(state)) for state in states]


def _saved(directory, steps: int = 3) -> Trainer:
    seed_globals(0)
    trainer = Trainer()
    for _ in range(steps):
        trainer.step()
    save_checkpoint(directory, step=steps, state={"cursor": [1, 2.5], "left": {"a": None}}, **trainer.parts())
    return trainer


def test_training_goes_on_bit_for_bit(tmp_path):
    reference = _saved(tmp_path)
    for _ in range(5):
        reference.step()
    resumed = Trainer()
    random.random()
    torch.rand(3)
    loaded = load_latest(tmp_path, **resumed.parts())
    assert loaded is not None
    assert (loaded.step, loaded.state) == (3, {"cursor": [1, 2.5], "left": {"a": None}})
    restore_rng_state(loaded.rng)
    assert resumed.model["head"].weight is resumed.model["embed"].weight
    for _ in range(5):
        resumed.step()
    assert _full_state(resumed) == _full_state(reference)


def test_weights_alone_are_read_and_nothing_else_is_touched(tmp_path):
    reference, other = _saved(tmp_path), Trainer()
    before = _bytes([other.optimizer.state_dict(), other.schedule.state_dict()])
    [path] = list_checkpoints(tmp_path)
    load_modules(path, {"policy": other.model})
    assert checkpoint_step(path) == 3
    assert _bytes(other.model.state_dict()) == _bytes(reference.model.state_dict())
    assert _bytes([other.optimizer.state_dict(), other.schedule.state_dict()]) == before
    with pytest.raises(CheckpointError, match=r"holds modules \['policy'\], not judge"):
        load_modules(path, {"judge": other.model})
    (path / "module-policy-00000.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"module-policy-00000\.safetensors is damaged"):
        load_modules(path, {"policy": other.model})


def test_nothing_saved_yet(tmp_path):
    assert load_latest(tmp_path / "nowhere", **Trainer().parts()) is None


def test_before_the_first_optimizer_step(tmp_path):
    _saved(tmp_path, steps=0)
    resumed = Trainer()
    assert load_latest(tmp_path, **resumed.parts()) is not None
    assert resumed.optimizer.state_dict()["state"] == {}


def test_only_safetensors_and_json_are_written_and_ties_once(tmp_path):
    trainer = _saved(tmp_path)
    files = {file.name: file.stat().st_size for file in (tmp_path / "step-000003").iterdir()}
    names = {"module-policy-00000.safetensors", "optimizer-policy-00000.safetensors", "state.json", "manifest.json"}
    assert files.keys() == names
    weights = sum(p.numel() * p.element_size() for p in trainer.model.parameters())
    assert weights < files["module-policy-00000.safetensors"] < weights + 1500


@pytest.mark.parametrize(("keep", "expected"), [(1, [4]), (2, [3, 4])])
def test_older_checkpoints_go(tmp_path, keep, expected):
    trainer = Trainer()
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step=step, state={}, keep=keep, **trainer.parts())
    assert [int(path.name[-6:]) for path in list_checkpoints(tmp_path)] == expected
    assert len(list(tmp_path.iterdir())) == len(expected)


def test_newest_is_by_number(tmp_path):
    trainer = Trainer()
    for step in (999_999, 1_000_000):
        save_checkpoint(tmp_path, step=step, state={}, keep=2, **trainer.parts())
    loaded = load_latest(tmp_path, **trainer.parts())
    assert loaded is not None and loaded.step == 1_000_000


@pytest.mark.parametrize(
    "name", ["module-policy-00000.safetensors", "optimizer-policy-00000.safetensors", "state.json"]
)
@pytest.mark.parametrize("damage", ["flip", "truncate", "append", "remove"])
def test_any_damage_is_an_error_that_names_the_file(tmp_path, name, damage):
    trainer = _saved(tmp_path, steps=1)
    save_checkpoint(tmp_path, step=2, state={}, keep=2, **trainer.parts())  # an older one to fall back to is there
    path = tmp_path / "step-000002" / name
    data = bytearray(path.read_bytes())
    position = random.Random(name + damage).randrange(len(data))
    data[position] ^= 1 << random.Random(name).randrange(8)
    altered = {"flip": data, "truncate": data[:position], "append": data + b" "}
    path.unlink() if damage == "remove" else path.write_bytes(altered[damage])
    with pytest.raises(CheckpointError, match=f"step-000002/{name} is damaged") as error:
        load_latest(tmp_path, **Trainer().parts())
    assert "\n" not in str(error.value)


def test_no_flipped_byte_of_the_manifest_goes_through_unless_harmless(tmp_path):
    _saved(tmp_path, steps=1)
    manifest = tmp_path / "step-000001" / "manifest.json"
    data = manifest.read_bytes()
    num_refused = 0
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        manifest.write_bytes(altered)
        try:
            loaded = load_latest(tmp_path, **Trainer().parts())
            assert loaded is not None and loaded.step == 1
        except CheckpointError:
            num_refused += 1
    assert num_refused > 0.8 * len(data)  # what remains is white space
    manifest.unlink()
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged: it is missing"):
        load_latest(tmp_path, **Trainer().parts())


def test_a_checkpoint_of_something_else(tmp_path):
    _saved(tmp_path)
    with pytest.raises(CheckpointError, match="another model"):
        load_latest(tmp_path, **Trainer(width=5).parts())
    with pytest.raises(CheckpointError, match=r"holds modules \['policy'\], this run has \['discriminator'\]"):
        load_latest(tmp_path, modules={"discriminator": nn.Linear(1, 1)}, optimizers={}, schedulers={})
    trainer = Trainer()
    trainer.optimizer = torch.optim.AdamW(trainer.model.parameters())
    with pytest.raises(CheckpointError, match="optimizer-policy"):
        load_latest(tmp_path, **trainer.parts())


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, float("nan"), {"x": {3}}])
def test_state_that_json_would_change_is_refused(tmp_path, value):
    with pytest.raises((TypeError, ValueError)):
        save_checkpoint(tmp_path, step=1, state={"x": value}, **Trainer().parts())
    assert list(tmp_path.iterdir()) == []


def test_the_running_optimizer_is_not_disturbed_by_saving(tmp_path):
    trainer = Trainer()
    trainer.step()
    before = copy.deepcopy(_full_state(trainer))
    save_checkpoint(tmp_path, step=1, state={}, **trainer.parts())
    assert _full_state(trainer) == before


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path):
    leftover = tmp_path / ".step-000002.partial-0123456789ab"
    leftover.mkdir()
    (leftover / "module-policy-00000.safetensors").write_bytes(b"half")
    _saved(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]


@pytest.mark.parametrize("limit", [300, 1000, 1800])
def test_no_room_for_the_next_checkpoint_keeps_the_last(tmp_path, limit):
    """The kernel refuses to let a file grow past `limit`, as it does on a full disk."""
    trainer = _saved(tmp_path)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            save_checkpoint(tmp_path, step=4, state={}, **trainer.parts())
        except StorageError as error:
            os._exit(0 if "step-000004" in str(error) and "free some space" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]
    resumed = Trainer()
    assert load_latest(tmp_path, **resumed.parts()) is not None
    assert _full_state(resumed) == _full_state(trainer)
