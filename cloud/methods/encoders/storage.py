"""Storage of encoders as files of a bundle."""

from typing import TypeAlias

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from cloud.methods.encoders.image import ImageEncoder
from cloud.methods.encoders.video import VideoEncoder
from shared.bundle import ENCODER_FILE, Bundle
from shared.errors import BundleError
from shared.modality import Modality

PatchEncoder: TypeAlias = ImageEncoder | VideoEncoder


def encoder_bytes(encoder: PatchEncoder) -> bytes:
    """Return the encoder as the bytes of a safetensors file."""
    data: bytes = save_tensors({name: tensor.cpu() for name, tensor in encoder.state().items()})
    return data


def load_encoder(bundle: Bundle, device: str = "cpu") -> PatchEncoder | None:
    """Return the encoder of a bundle on `device`; None for other modalities. Raises BundleError for a damaged file."""
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
