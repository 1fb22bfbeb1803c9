"""Detector of anomalies in tables, series, images and videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError

from cloud.api.fitting import Fit, no_progress, save_bundle
from cloud.api.inputs import ScoreInput, TableOptions, array_input, as_readings, image_input, open_input
from cloud.api.scores import FALSE_ALARM_RATE, InputSample, SampleScorer, Scores
from cloud.modalities import cloud_modality
from cloud.serving.analysis import FUSED, Analysis
from cloud.training.data import TrainingData, checked
from cloud.training.modalities import load_training_data
from cloud.training.progress import StageProgress
from cloud.training.samples.images import ImageData
from cloud.training.settings import TrainingSettings
from shared.bundle import Bundle
from shared.errors import DataError, SettingsError
from shared.home import signing_key, trusted_key
from shared.modalities import sample_type
from shared.modality import Modality

Data: TypeAlias = str | Path | NDArray[Any] | Sequence[str | Path] | Sequence[NDArray[Any]]


class Detector:
    """Anomaly detector of one modality: "tabular", "series", "image" or "video".

    `settings`: keyword arguments are those of `vedette train --config`, for example `effort=0.2` or
    `series={"window_length": 64}`. Raises SettingsError for an unknown modality or setting.
    """

    def __init__(self, modality: str, **settings: Any) -> None:
        known = [str(each) for each in Modality]
        if modality not in known:
            raise SettingsError(f"modality: there is no {modality!r}; there are {', '.join(known)}.")
        self.modality = Modality(modality)
        unknown = sorted(settings.keys() - TrainingSettings.model_fields.keys())
        if unknown:
            raise SettingsError(
                f"unknown setting {unknown[0]!r}: there are {', '.join(TrainingSettings.model_fields)}."
            )
        self.settings = TrainingSettings().changed(settings)
        self._fit: Fit | None = None
        self._bundle: Bundle | None = None
        self._analysis: Analysis | None = None

    def fit(self, data: Data, *, progress: StageProgress = no_progress) -> Self:
        """Learn from normal samples and return the detector.

        `data`: a path as for `vedette train`; rows (n, features) or a series (time points, channels) as an array; or a
        list of image files. Raises DataError for data that cannot be used.
        """
        self._fit = Fit.of(self._training_data(data), self.settings, progress)
        self._analysis, self._bundle = self._fit.analysis, None
        return self

    def score(
        self, data: Data, *, method: str = FUSED, false_alarm_rate: float = FALSE_ALARM_RATE, time_column: str = ""
    ) -> Scores:
        """Return one result per sample, in order; an unreadable sample is "undecided" with a reason.

        `data`: as for `fit`; images also as a list of arrays (height, width, 3) uint8. `method`: "fused", the name of
        an analyzer, or "screener" for a saved or loaded detector. Raises NotFittedError before `fit` or `load`.
        """
        analysis = self._analysis
        if analysis is None:
            raise NotFittedError("This detector is not fitted: call fit(data) first, or Detector.load(path).")
        scorer = SampleScorer(analysis, method, false_alarm_rate, self._bundle)
        return Scores(tuple(scorer.score(self._input(data, analysis, time_column).blocks)))

    def save(self, path: str | Path, *, key: str | Path | None = None) -> Path:
        """Build the device's screener and write the signed bundle; return its path.

        `key`: private signing key; by default $VEDETTE_HOME/signing.pem, made at first use. Raises NotFittedError
        before `fit`, ParityError if the quantised screener disagrees with the original.
        """
        target = Path(path)
        if self._bundle is None:
            if self._fit is None:
                raise NotFittedError("This detector is not fitted: call fit(data) first.")
            self._bundle = self._fit.bundle(signing_key(None if key is None else Path(key)))
        save_bundle(self._bundle, target)
        return target

    @classmethod
    def load(cls, path: str | Path, *, key: str | Path | None = None, device: str = "auto") -> "Detector":
        """Open a signed bundle, of `save` or of `vedette train`.

        `key`: trusted public key; by default that of your signing key. Raises BundleError for a bundle that is
        damaged or signed by another key.
        """
        bundle = Bundle.open(Path(path), [trusted_key(None if key is None else Path(key))])
        detector = cls(str(bundle.manifest.modality))
        detector._bundle, detector._analysis = bundle, Analysis.load(bundle, device)
        return detector

    def _training_data(self, data: Data) -> TrainingData:
        if isinstance(data, str | Path):
            return load_training_data(Path(data), self.modality, self.settings.data)
        if self._takes_image_files and _are_paths(data):
            return ImageData("images", tuple(Path(str(each)) for each in data))
        if cloud_modality(self.modality).has_encoder:
            raise DataError(
                f"{self.modality}: fit on a folder{', or a list of image files' * self._takes_image_files}."
            )
        rows = np.array(data, dtype=np.float64)
        rows = as_readings(rows, self.modality)
        if rows.ndim != 2:
            raise DataError(f"An array of shape {rows.shape}: give rows (n, features) or (time points, channels).")
        prefix = "x" if sample_type(self.modality).rank == 1 else "channel"
        columns = [f"{prefix}{index + 1}" for index in range(rows.shape[1])]
        return checked(Path("array"), self.modality, columns, rows, self.settings.data)

    @property
    def _takes_image_files(self) -> bool:
        modality = cloud_modality(self.modality)
        return modality.has_encoder and not modality.has_frames

    def _input(self, data: Data, analysis: Analysis, time_column: str) -> ScoreInput:
        spec = analysis.preprocessor.spec
        if isinstance(data, str | Path):
            options = TableOptions(self.settings.data.label_column, time_column or self.settings.data.time_column)
            return open_input(Path(data), self.modality, spec, options)
        if self._takes_image_files and _are_paths(data):
            return image_input([Path(str(each)) for each in data], spec)
        if cloud_modality(self.modality).has_encoder:
            samples = [InputSample(str(index + 1), np.asarray(each, np.uint8)) for index, each in enumerate(data)]
            return ScoreInput(len(samples), iter([[each] for each in samples]))
        return array_input(np.asarray(data), self.modality, spec)


def _are_paths(data: Any) -> bool:
    return len(data) > 0 and all(isinstance(each, str | Path) for each in data)
