import json
import math

import pytest
import torch
from torch import nn

from prism.errors import CheckpointError
from prism.runtime.state_codec import join_tensors, module_targets, module_tensors, split_tensors, storable


def test_a_tree_survives_json():
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "none": None}, 1: {}},
        "betas": (0.9, 0.1 + 0.2),
        "nested": [(), [1, (2, {"@odd": True})], "text", math.pi],
    }
    document, tensors = split_tensors(tree, "opt")
    back = join_tensors(json.loads(json.dumps(document)), tensors)
    assert torch.equal(back["state"][0].pop("step"), tree["state"][0].pop("step"))
    assert back == tree
    assert type(back["betas"]) is tuple
    assert list(tensors) == ["opt/state/0/step"]


def test_what_json_cannot_hold_is_named():
    with pytest.raises(TypeError, match=r"opt/group/0/fn is a function"):
        split_tensors({"group": [{"fn": lambda: None}]}, "opt")


class Tied(nn.Module):
    def __init__(self, is_tied: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))
        self.register_buffer("empty", torch.zeros(0))
        if is_tied:
            self.head.weight = self.embed.weight


def test_tied_weights_are_stored_once_and_stay_tied():
    source, target = Tied(), Tied()
    tensors, ties = module_tensors(source)
    assert sorted(tensors) == ["embed.weight", "empty", "mean"]
    assert ties == {"head.weight": "embed.weight"}
    assert module_targets(target, tensors, ties, "file").keys() == tensors.keys()


def test_what_is_to_be_filled_is_what_an_optimizer_holds():
    source, target = Tied(), Tied()
    without_content = {name: tensor.to("meta") for name, tensor in module_tensors(source)[0].items()}
    targets = module_targets(target, without_content, module_tensors(source)[1], "file")
    assert targets["embed.weight"].data_ptr() == target.head.weight.data_ptr()
    assert targets["mean"].data_ptr() == target.get_buffer("mean").data_ptr()


@pytest.mark.parametrize(
    ("other", "named"),
    [(Tied(is_tied=False), "head.weight"), (nn.Linear(3, 5), ""), (Tied().double(), "is torch.float32")],
)
def test_another_model_is_refused(other, named):
    with pytest.raises(CheckpointError, match=f"some/file belongs to another model: .*{named}"):
        module_targets(other, *module_tensors(Tied()), "some/file")


def test_storable_tensors_are_contiguous_and_apart():
    base = torch.arange(6.0)
    given = {"all": base, "view": base[1:3], "transposed": base.view(2, 3).T, "own": torch.ones(2)}
    result = storable(given)
    assert all(torch.equal(result[name], given[name]) and result[name].is_contiguous() for name in given)
    assert len({tensor.untyped_storage().data_ptr() for tensor in result.values()}) == len(given)
    assert result["own"].data_ptr() == given["own"].data_ptr()
