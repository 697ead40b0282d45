"""Qwen3-VL's patch embedding, computed as the matrix product that it is."""

from torch import Tensor, nn


class PatchProjection(nn.Conv3d):
    """A convolution each of whose inputs is one patch, exactly as large as the kernel.

    transformers calls a convolution for it, for which the libraries below have no good way: its gradient is eleven
    times as dear as the product's on a CPU, and thousands of times on some GPUs in bfloat16, users report
    (huggingface/transformers#45750). Weights keep the names and shapes of the checkpoint.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(patches, channels, *kernel_size) to (patches, out_channels, 1, 1, 1)."""
        product = nn.functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)
        return product[..., None, None, None]


def project_patches(model: nn.Module) -> None:
    """Turns the patch embeddings of a Qwen3-VL into `PatchProjection`s, weights and all."""
    for name, module in model.named_modules():
        if name.endswith("patch_embed.proj") and type(module) is nn.Conv3d:
            module.__class__ = PatchProjection
