"""Patches are embedded by one matrix product, in every model, as transformers' convolution embeds them."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from prism.models import Discriminator, PromptEncoder, load_policy, save_policy, upcycle, widen
from prism.models.patches import PatchProjection, project_patches
from prism.models.tiny import build_tiny, tiny_config

Build = Callable[..., Any]


def test_product_equals_convolution_in_output_and_gradients() -> None:
    convolution = nn.Conv3d(3, 40, (2, 16, 16), stride=(2, 16, 16)).double()
    model = nn.ModuleDict({"patch_embed": nn.ModuleDict({"proj": copy.deepcopy(convolution)})})
    project_patches(model)
    product: Any = model.get_submodule("patch_embed.proj")
    assert type(product) is PatchProjection
    pixels, upstream = torch.randn(7, 3, 2, 16, 16).double(), torch.randn(7, 40, 1, 1, 1).double()
    outputs = [convolution(pixels), product(pixels)]
    torch.testing.assert_close(outputs[1], outputs[0])
    for output in outputs:
        output.backward(upstream)
    for own, expected in zip(product.parameters(), convolution.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad)


def test_convolution_over_more_than_a_patch_is_left_alone() -> None:
    overlapping = nn.Conv3d(3, 4, (2, 4, 4), stride=(2, 2, 2))
    model = nn.ModuleDict({"patch_embed": nn.ModuleDict({"proj": overlapping})})
    project_patches(model)
    assert type(overlapping) is nn.Conv3d


def test_every_model_that_trains_embeds_by_a_product(
    build_dense: Build, encoder: PromptEncoder, tmp_path: Path
) -> None:
    save_policy(build_dense(), encoder, tmp_path)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path)
    policy: Any = load_policy(tmp_path)
    sparse, wide = upcycle(policy, num_experts=2, top_k=1), widen(policy)
    bodies = [policy.model, Discriminator(sparse.model).model, Discriminator(wide.model).model]
    tiny: Any = build_tiny(tiny_config(encoder.tokenizer), seed=0)
    assert type(tiny.model.visual.patch_embed.proj) is PatchProjection
    assert all(type(body.visual.patch_embed.proj) is PatchProjection for body in bodies)
    assert type(plain.model.visual.patch_embed.proj) is nn.Conv3d
    pixels = torch.randn(5, plain.model.visual.patch_embed.proj.weight[0].numel())
    expected = plain.model.visual.patch_embed(pixels)
    for body in bodies:
        torch.testing.assert_close(body.visual.patch_embed(pixels), expected)
