"""Layers that the screeners of images and clips share."""

from torch import nn


def as_convolution(layer: nn.Module) -> nn.Module:
    """Return a linear layer as a 1 x 1 convolution, which engines run in INT8 on channels-first maps; others as is."""
    if not isinstance(layer, nn.Linear):
        return layer
    convolution = nn.Conv2d(layer.in_features, layer.out_features, 1)
    convolution.load_state_dict({"weight": layer.weight[:, :, None, None], "bias": layer.bias})
    return convolution
