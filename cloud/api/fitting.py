"""The training run in two halves: fit for scoring in memory, and the screener and signature at `save`.

Export, quantisation and the parity gate take most of the time on small data. A detector that is only scored needs none
of them.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloud.serving.analysis import Analysis
from cloud.training.choices import checked_methods
from cloud.training.data import TrainingData
from cloud.training.progress import StageProgress
from cloud.training.settings import TrainingSettings
from cloud.training.stages import TrainingRun
from shared.bundle import Bundle
from shared.diffusion.training import time_limited_trainings
from shared.errors import DataError


def no_progress(stage: str, share: float) -> None:
    """Ignore the progress."""


@dataclass
class Fit:
    """Fitted analyzers of a training run, which `bundle` completes."""

    run: TrainingRun
    cut_short: tuple[str, ...]

    @classmethod
    def of(cls, data: TrainingData, settings: TrainingSettings, progress: StageProgress = no_progress) -> "Fit":
        """Split the data, fit preprocessing, encoder and analyzers, and calibrate them on the held-out part.

        Raises DataError for data that cannot be used, SettingsError for settings that do not fit the modality.
        """
        run = TrainingRun(data, settings, checked_methods(settings, data.modality), progress)
        with run.modality.threads(), time_limited_trainings() as cut_short:
            run.fit()
        return cls(run, tuple(cut_short))

    @property
    def analysis(self) -> Analysis:
        """Calibrated analyzers and their fusion."""
        return self.run.fitted.analysis

    def bundle(self, signing_key: Ed25519PrivateKey) -> Bundle:
        """Distil, export, quantise, gate and judge the screener; return the signed bundle.

        Raises ParityError if the artefacts disagree.
        """
        run = self.run
        with run.modality.threads(), time_limited_trainings() as cut_short:
            run.complete()
        return run.sign(signing_key, [*self.cut_short, *cut_short])


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write a bundle. Raises FileNotWrittenError if that fails."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise DataError(f"{path}: not a file in an existing folder. Give another path.")
    bundle.save(path)
