"""From samples to graph inputs, which heads and analyzers see, and to engine inputs, which artefacts take.

Fitted on normal data, the same code on both sides.

Runs on devices: numpy only, and OpenCV (at first use) for images.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from shared.bundle import Bundle, InputSpec, Manifest
from shared.errors import BundleMismatchError, DataError
from shared.modality import Modality
from shared.preprocessing.base import FOLDER, Prepared, Preprocessor, SeriesWindows
from shared.preprocessing.columns import InputColumns, columns_of, mask_width, modes_of
from shared.preprocessing.image import ImagePreprocessor
from shared.preprocessing.modes import ModePreprocessor, inner_spec, without_mode
from shared.preprocessing.series import SeriesPreprocessor
from shared.preprocessing.tabular import TabularPreprocessor
from shared.preprocessing.video import VideoPreprocessor

__all__ = [
    "ImagePreprocessor",
    "InputColumns",
    "ModePreprocessor",
    "Prepared",
    "Preprocessor",
    "SeriesPreprocessor",
    "SeriesWindows",
    "TabularPreprocessor",
    "VideoPreprocessor",
    "columns_of",
    "fit_preprocessor",
    "load_preprocessor",
    "mask_width",
    "modes_of",
    "preprocessing_id",
    "without_mode",
]


def fit_preprocessor(
    modality: Modality, normal_values: NDArray[Any] | Sequence[NDArray[Any]], spec: InputSpec
) -> Preprocessor:
    """Fit on normal samples: tabular (n, features), series windows (n, length, channels); images and clips
    need no fitting.

    `spec` names the features or channels, or gives the size of the graph's images.
    Raises DataError for a modality without preprocessing, or for values that do not fit the spec.
    """
    if spec.mode_channel:
        return ModePreprocessor(fit_preprocessor(modality, without_mode(normal_values, spec), inner_spec(spec)), spec)
    if modality is Modality.IMAGE:
        return ImagePreprocessor(spec)
    if modality is Modality.VIDEO:
        return VideoPreprocessor(spec)
    if modality is Modality.TABULAR:
        return TabularPreprocessor.fit(normal_values, spec)
    if modality is Modality.SERIES:
        return SeriesPreprocessor.fit(normal_values, spec)
    raise DataError(f"There is no preprocessing for {modality}: train on tabular, series, image or video data.")


def load_preprocessor(bundle: Bundle) -> Preprocessor:
    """The preprocessing a bundle holds; raises BundleMismatchError for a modality this version does not know."""
    spec = bundle.manifest.input
    if spec.mode_channel:
        return ModePreprocessor(_load(bundle, inner_spec(spec)), spec)
    return _load(bundle, spec)


def preprocessing_id(manifest: Manifest) -> str:
    """A short hash of the preprocessing: graph inputs of two bundles can be mixed if and only if theirs are equal."""
    digest = hashlib.sha256(manifest.input.model_dump_json().encode())
    for path in sorted(path for path in manifest.files if path.startswith(FOLDER)):
        digest.update(f"{path}={manifest.files[path].sha256};".encode())
    return digest.hexdigest()[:12]


def _load(bundle: Bundle, spec: InputSpec) -> Preprocessor:
    modality = bundle.manifest.modality
    if modality is Modality.IMAGE:
        return ImagePreprocessor(spec)
    if modality is Modality.VIDEO:
        return VideoPreprocessor(spec)
    if modality is Modality.TABULAR:
        return TabularPreprocessor.from_arrays(bundle.arrays(f"{FOLDER}{TabularPreprocessor.file_name}"), spec)
    if modality is Modality.SERIES:
        return SeriesPreprocessor.from_arrays(bundle.arrays(f"{FOLDER}{SeriesPreprocessor.file_name}"), spec)
    raise BundleMismatchError(
        f"Bundle {bundle.manifest.bundle_id} is for {modality}, which this version cannot prepare."
    )
