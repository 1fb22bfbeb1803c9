"""One module per modality: input spec, preprocessing, payload codec, payload forms and batch size.

Adding a modality on this side is a module with a `SAMPLE_TYPE` and a line in `_MODULES`. Modules are imported at first
use: naming a modality loads neither NumPy nor OpenCV.
"""

from __future__ import annotations

import hashlib
import importlib
from functools import cache
from typing import TYPE_CHECKING, Any

from shared.modality import Modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from shared.bundle import Bundle, InputSpec, Manifest
    from shared.modalities.base import SampleType
    from shared.preprocessing import Preprocessor

_MODULES = {
    Modality.TABULAR: "shared.modalities.tabular",
    Modality.SERIES: "shared.modalities.series",
    Modality.IMAGE: "shared.modalities.image",
    Modality.VIDEO: "shared.modalities.video",
}


@cache
def sample_type(modality: Modality) -> SampleType:
    """Return the rules of samples of this modality."""
    kind: SampleType = importlib.import_module(_MODULES[modality]).SAMPLE_TYPE
    return kind


def fit_preprocessor(
    modality: Modality, normal_values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec
) -> Preprocessor:
    """Fit the preprocessing on normal samples: rows (n, features) or windows (n, length, channels).

    Images and clips need no fitting. `spec` names the features or channels, or gives the size of the graph's images.
    Raises DataError for values that do not fit the spec.
    """
    return sample_type(modality).fit_preprocessor(normal_values, spec)


def load_preprocessor(bundle: Bundle) -> Preprocessor:
    """Load the preprocessing of a bundle; raises BundleError if it is damaged."""
    return sample_type(bundle.manifest.modality).load_preprocessor(bundle, bundle.manifest.input)


def preprocessing_id(manifest: Manifest) -> str:
    """Return a short hash of the preprocessing: two bundles with equal ids make the same graph inputs."""
    from shared.bundle import PREPROCESSING_FOLDER

    digest = hashlib.sha256(manifest.input.model_dump_json().encode())
    for path in sorted(path for path in manifest.files if path.startswith(PREPROCESSING_FOLDER)):
        digest.update(f"{path}={manifest.files[path].sha256};".encode())
    return digest.hexdigest()[:12]
