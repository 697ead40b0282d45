"""Qwen3-VL's patch embedding, computed as the matrix product that it is."""

from jaxtyping import Float
from torch import Tensor, nn


class PatchProjection(nn.Conv3d):
    """A convolution each of whose inputs is one patch, exactly as large as the kernel.

    transformers calls a convolution for it, whose forward and backward pass take seven times as long as the product's
    on a CPU (`benchmarks/overheads.py`), and on a GPU in bfloat16 one user has found it 50,000 times slower
    (huggingface/transformers#45750). Its own remedy, `fusion_config`, renames and reshapes the weights of a loaded
    model, which those that push, merge and upcycle weights would have to know. Here they keep names and shapes.
    """

    def forward(
        self, input: Float[Tensor, "patch channel time row column"]
    ) -> Float[Tensor, "patch out_channel 1 1 1"]:
        product = nn.functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)
        return product[..., None, None, None]


def project_patches(model: nn.Module) -> None:
    """Turns the patch embeddings of a Qwen3-VL into `PatchProjection`s, weights and all."""
    for name, module in model.named_modules():
        if name.endswith("patch_embed.proj") and type(module) is nn.Conv3d and _sees_patches_once(module):
            module.__class__ = PatchProjection


def _sees_patches_once(convolution: nn.Conv3d) -> bool:
    is_plain = convolution.dilation == (1, 1, 1) and convolution.groups == 1 and convolution.padding == (0, 0, 0)
    return is_plain and convolution.stride == convolution.kernel_size
