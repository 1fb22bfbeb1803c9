"""Images on the serving side."""

from typing import TYPE_CHECKING

from cloud.modalities.base import CloudModality, PreparedSamples, View
from cloud.modalities.tabular import on_device
from shared.bundle import Bundle
from shared.modality import Modality

if TYPE_CHECKING:
    import torch

    from cloud.methods import Features
    from cloud.methods.encoders import Encoder, PatchEncoder


class Image(CloudModality):
    """Pictures: patches of an encoder, explained by a map of patches."""

    name = Modality.IMAGE
    noun = "image"
    view = View.PICTURE
    source_kind = "images"
    default_methods = ("score_norm", "local_corruption")
    has_encoder = True
    chunk_samples = 64

    def load_encoder(self, bundle: Bundle, device: str = "cpu") -> "PatchEncoder | None":
        """Return the image encoder of a bundle on `device`. Raises BundleError if it is damaged."""
        from cloud.methods.encoders import ImageEncoder, encoder_state

        return ImageEncoder.from_state(encoder_state(bundle)).to(device)

    def features(self, samples: PreparedSamples, encoder: "Encoder | None", device: "torch.device") -> "Features":
        """Return the patches of the images, with their details if the encoder has them."""
        from cloud.methods import DetailFeatures, PatchFeatures
        from cloud.methods.encoders import DetailEncoder

        assert encoder is not None
        known = samples.known_patches(encoder.grid)
        mask = None if known is None else on_device(known, device)
        if isinstance(encoder, DetailEncoder):
            vectors, details = encoder.views(samples.inputs)
            return DetailFeatures(vectors.to(device), grid=encoder.grid, known=mask, details=details.to(device))
        return PatchFeatures(encoder.encode(samples.inputs).to(device), grid=encoder.grid, known=mask)
