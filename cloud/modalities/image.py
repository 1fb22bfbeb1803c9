"""Images on the serving side."""

from typing import TYPE_CHECKING

from cloud.modalities.base import CloudModality, View
from shared.bundle import Bundle
from shared.modality import Modality

if TYPE_CHECKING:
    from cloud.methods.encoders import PatchEncoder


class Image(CloudModality):
    """Pictures: patches of an encoder, explained by a map of patches."""

    name = Modality.IMAGE
    view = View.PICTURE
    source_kind = "images"
    default_methods = ("score_norm", "local_corruption")
    has_encoder = True
    chunk_samples = 64

    def load_encoder(self, bundle: Bundle, device: str = "cpu") -> "PatchEncoder | None":
        """Return the image encoder of a bundle on `device`. Raises BundleError if it is damaged."""
        from cloud.methods.encoders import ImageEncoder, encoder_state

        return ImageEncoder.from_state(encoder_state(bundle)).to(device)
