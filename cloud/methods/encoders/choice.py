"""Which encoder and which screener a modality has, and how the encoder lies in a bundle."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cloud.methods.encoders.image import ImageEncoder
from cloud.methods.encoders.screener import EQUAL_WEIGHTS, ImageScreener, VectorScreener
from cloud.methods.encoders.video import VideoEncoder
from cloud.methods.encoders.video_screener import VideoScreener
from shared.bundle import Bundle
from shared.diffusion import TimeEstimationHead
from shared.diffusion.local_corruption import CorruptionHead
from shared.errors import BundleError
from shared.modality import Modality

ENCODER_FILE = "cloud/encoder.safetensors"
SCALING_IMAGES = 128  # of the training images, enough for a mean and a deviation at each place
SCALING_PIXELS, FEWEST_SCALING_IMAGES = SCALING_IMAGES * 640 * 640, 20  # fewer where they are large

PatchEncoder: TypeAlias = ImageEncoder | VideoEncoder
Screener: TypeAlias = VectorScreener | ImageScreener | VideoScreener


def fit_encoder(
    inputs: NDArray[Any],
    *,
    generator: torch.Generator,
    dim: int,
    progress: Callable[[float], None] | None = None,
) -> tuple[PatchEncoder, Tensor]:
    """The encoder of images (n, height, width, 3) or clips (n, frames, height, width, 3) uint8, fitted on normal ones.

    Also returns patch vectors (patches, width) of them. `dim` is the width for images.
    """
    if inputs.ndim == 5:
        return VideoEncoder.fit(inputs, generator=generator, progress=progress)
    return ImageEncoder.fit(inputs, generator=generator, dim=dim, progress=progress)


def screener_of(
    encoder: PatchEncoder,
    head: TimeEstimationHead,
    normal: NDArray[Any],
    corruption: CorruptionHead | None = None,
    weights: Sequence[float] = EQUAL_WEIGHTS,
) -> Screener:
    """The whole screener of images or clips. `normal`: graph inputs that set its scales; `weights` of its opinions."""
    if isinstance(encoder, VideoEncoder):
        return VideoScreener(encoder, head)
    screener = ImageScreener(encoder, head, corruption)
    most = max(FEWEST_SCALING_IMAGES, SCALING_PIXELS // (encoder.height * encoder.width))
    screener.fit(normal[: min(SCALING_IMAGES, most)], weights)
    return screener


def encoder_bytes(encoder: PatchEncoder) -> bytes:
    """The encoder as a safetensors file."""
    data: bytes = save_tensors({name: tensor.cpu() for name, tensor in encoder.state().items()})
    return data


def load_encoder(bundle: Bundle, device: str = "cpu") -> PatchEncoder | None:
    """The encoder of a bundle on `device`; None for a modality that has none. Raises BundleError if it is damaged."""
    if bundle.manifest.modality not in (Modality.IMAGE, Modality.VIDEO):
        return None
    kind = VideoEncoder if bundle.manifest.modality is Modality.VIDEO else ImageEncoder
    return kind.from_state(encoder_state(bundle)).to(device)


def encoder_state(bundle: Bundle) -> dict[str, Tensor]:
    """Return the tensors of a bundle's encoder. Raises BundleError if its file is damaged."""
    try:
        state: dict[str, Tensor] = load_tensors(bundle.read(ENCODER_FILE))
        return state
    except (ValueError, SafetensorError) as error:
        raise BundleError(f"Bundle {bundle.manifest.bundle_id}: {ENCODER_FILE} is damaged: {error}.") from None
