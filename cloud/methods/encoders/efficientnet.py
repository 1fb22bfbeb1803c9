"""First eleven blocks of EfficientNet-Lite0 with ImageNet weights and folded batch normalisation.

Source: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019), table 1; the
Lite variant leaves out squeeze-and-excitation and uses ReLU6. Pixels are scaled as in its training: (x - 127) / 128.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

PIXEL_MEAN, PIXEL_SCALE = 127.0, 128.0
SHALLOW_CHANNELS, DEEP_CHANNELS = 40, 112
LEVEL_BLOCKS = (2, 4, 7, 10)  # the last block of each resolution, and the deepest block: strides 4, 8, 16 and 16
LEVEL_CHANNELS = (24, 40, 80, 112)
LEVEL_STRIDES = (4, 8, 16, 16)
DEEP_STRIDE = 16
REACH_PIXELS = 169  # from a place of the deepest level to the farthest pixel that its values depend on


@dataclass(frozen=True, slots=True)
class _Block:
    kernel: int
    stride: int
    expansion: int
    inputs: int
    outputs: int


def _stages() -> tuple[_Block, ...]:
    """Return the blocks in order, from rows of (repeats, kernel, stride, expansion, inputs, outputs)."""
    rows = (
        (1, 3, 1, 1, 32, 16),
        (2, 3, 2, 6, 16, 24),
        (2, 5, 2, 6, 24, 40),
        (3, 3, 2, 6, 40, 80),
        (3, 5, 1, 6, 80, 112),
    )
    blocks = []
    for repeats, kernel, stride, expansion, inputs, outputs in rows:
        blocks.append(_Block(kernel, stride, expansion, inputs, outputs))
        blocks += [_Block(kernel, 1, expansion, outputs, outputs)] * (repeats - 1)
    return tuple(blocks)


class _PaddedConv(nn.Module):
    """Convolution with bias and the padding of TensorFlow: at stride 2 and even size one more at the far side."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        total = kernel - stride
        self._padding = (total // 2, total - total // 2) * 2
        even = total % 2 == 0
        self._pads = not even
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, total // 2 if even else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        result: Tensor = self.conv(F.pad(x, self._padding) if self._pads else x)
        return result


class InvertedBottleneck(nn.Module):
    """Inverted residual block: expansion, depthwise convolution, projection."""

    def __init__(self, block: _Block) -> None:
        super().__init__()
        inner = block.inputs * block.expansion
        self.expand = _PaddedConv(block.inputs, inner, 1) if block.expansion > 1 else None
        self.depthwise = _PaddedConv(inner, inner, block.kernel, block.stride, groups=inner)
        self.project = _PaddedConv(inner, block.outputs, 1)
        self._has_skip = block.stride == 1 and block.inputs == block.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        result: Tensor = x + y if self._has_skip else y
        return result


class Backbone(nn.Module):
    """Network from pixels to features at several levels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _PaddedConv(3, 32, 3, 2)
        self.blocks = nn.ModuleList(InvertedBottleneck(block) for block in _stages())

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map (batch, 3, height, width) float32 in 0..255 to (batch, 40, h/8, w/8) and (batch, 112, h/16, w/16)."""
        _, shallow, _, deep = self.levels(pixels)
        return shallow, deep

    def levels(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of LEVEL_BLOCKS for pixels (batch, 3, height, width) float32 in 0..255.

        Their shapes are (batch, 24, h/4, w/4), (batch, 40, h/8, w/8), (batch, 80, h/16, w/16) and
        (batch, 112, h/16, w/16).
        """
        x = F.relu6(self.stem((pixels - PIXEL_MEAN) / PIXEL_SCALE))
        outputs = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in LEVEL_BLOCKS:
                outputs.append(x)
        return tuple(outputs)
