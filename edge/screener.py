"""Screening of samples by preprocessing, graph and calibration of one bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shared.bundle import Bundle, Manifest
from shared.calibration import MIN_P_VALUE
from shared.calibration_modes import CalibrationByMode
from shared.engines import Engine, EngineConfiguration, Pending, load_engine
from shared.engines.choice import Choice, choose_artefact
from shared.errors import BundleError, DataError, EngineError, MissingExtraError
from shared.logs import EventLog
from shared.modalities import load_preprocessor, preprocessing_id, sample_type
from shared.preprocessing import Prepared, Preprocessor, modes_of
from shared.samples import SampleBatch

NORMAL_MAP_LEVEL = 96.0  # out of 255: level of the brightest cells of a normal image
UNSCORED = float(np.finfo(np.float32).max)  # replaces a NaN or infinite score; finite and the largest

log = EventLog("screener")


@dataclass(frozen=True, slots=True)
class ScreenedBatch:
    """Scores and p-values of a batch, in the order of `kept`.

    `kept`: (kept,) positions in the batch. `inputs`: (kept, ...) engine inputs. `scores`, `p_values`: (kept,) float64.
    `extrapolated`: (kept,) bool. `maps`: (kept, h, w) raw patch scores, or None. `rejections`: position and reason of
    each sample that could not be screened. `unscored`: number of scores that were NaN or infinite. `calibration_id`:
    calibration of the p-values; empty: that of the screener.
    """

    kept: NDArray[np.intp]
    inputs: NDArray[Any]
    scores: NDArray[np.float64]
    p_values: NDArray[np.float64]
    extrapolated: NDArray[np.bool_]
    maps: NDArray[np.float32] | None
    rejections: Sequence[tuple[int, str]]
    unscored: int
    calibration_id: str = ""


@dataclass(frozen=True, slots=True)
class CalibrationResolution:
    """Resolution of a calibration: the p-value 1 / (`held_out` + 1) is the smallest without extrapolation.

    `held_out`: held-out normal samples, the fewest of an operating mode if `by_mode`. `has_tail`: smaller p-values are
    extrapolated; else there are none. `assumed_per_day`: samples a day that training judged with, 0 if unknown.
    `is_assumed`: nobody gave this rate, and the data has no times.
    """

    held_out: int
    has_tail: bool
    by_mode: bool
    assumed_per_day: float
    is_assumed: bool = True

    @classmethod
    def of(cls, calibration: CalibrationByMode, manifest: Manifest) -> Self:
        """Return the resolution of a calibration, with the rate in the manifest's judgement."""
        coarsest = calibration.coarsest
        try:
            facts = manifest.training["judgement"]["figures"]["resolution"]
            per_day, origin = float(facts["samples_per_day"]), facts.get("rate_origin", "")
        except (AttributeError, KeyError, TypeError, ValueError):  # facts for display, which have no schema
            per_day, origin = 0.0, ""
        per_day = per_day if np.isfinite(per_day) and per_day > 0 else 0.0
        return cls(len(coarsest.scores), coarsest.tail_scale > 0, bool(calibration.by_mode), per_day, not origin)


class Screener:
    """Loaded artefact of a bundle, for use by one thread at a time."""

    def __init__(self, bundle: Bundle, artefact_name: str, preprocessor: Preprocessor, engine: Engine) -> None:
        manifest = bundle.manifest
        artefact = manifest.artefact(artefact_name)
        self.bundle_id, self.bundle_name = manifest.bundle_id, manifest.name
        self.modality, self.spec = manifest.modality, manifest.input
        self.artefact, self.preprocessing_id = artefact_name, preprocessing_id(manifest)
        self._preprocessor, self._engine = preprocessor, engine
        self.ranges = preprocessor.ranges()
        arrays = bundle.arrays(artefact.calibration)
        try:
            self.calibration = CalibrationByMode.from_arrays(arrays)
        except DataError as error:
            raise BundleError(f"Bundle {self.bundle_id}, {artefact.calibration}: {error}") from None
        self.calibration_id = self.calibration.calibration_id
        if self.calibration_id != artefact.calibration_id:
            raise BundleError(f"Bundle {self.bundle_id}: {artefact.calibration} is not the one its manifest names.")
        self.resolution = CalibrationResolution.of(self.calibration, manifest)
        low, high = (float(value) for value in arrays.get("map_range", (0.0, 1.0)))
        self._map_range = (low, high if high > low else low + 1.0)
        self.depth = engine.depth

    def start(self, batch: SampleBatch) -> "PendingScreening":
        """Start on a batch; at most `depth` batches may be in progress."""
        prepared = self._preprocessor.prepare_for_engine(batch.values)
        pending: Pending | EngineError | None = None
        if len(prepared.kept):
            try:
                pending = self._engine.start(prepared.inputs)
            except EngineError as error:
                pending = error
        return PendingScreening(self, prepared, pending)

    def screen(self, batch: SampleBatch) -> ScreenedBatch:
        """Screen a batch and wait for the result."""
        return self.start(batch).result()

    def warm_up(self, batch_size: int) -> None:
        """Run the graph on zeros, so that the first samples do not wait for its initialisation.

        Raises EngineError if the graph fails or does not return one score per sample.
        """
        shape = (batch_size, *(abs(size) for size in self._engine.input_shape[1:]))
        inputs = np.zeros(shape, dtype=sample_type(self.modality).engine_dtype)
        output = self._engine.start(inputs).result()
        if output.scores.shape != (batch_size,):
            raise EngineError(
                f"Bundle {self.bundle_id}, {self.artefact}: scores of shape {output.scores.shape} for {batch_size} "
                "samples: not a screener graph."
            )

    def scaled_map(self, raw: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return a map (h, w) of raw patch scores in uint8: dark for normal images, 255 far outside normal."""
        low, high = self._map_range
        scaled = (raw.astype(np.float64) - low) / (high - low) * NORMAL_MAP_LEVEL
        return np.nan_to_num(np.clip(scaled, 0, 255), nan=255).astype(np.uint8)

    def graph_inputs(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Return the graph inputs that the artefact computes from engine inputs (n, ...)."""
        return self._preprocessor.graph_inputs(inputs)

    def modes(self, screened: ScreenedBatch) -> NDArray[np.int64] | None:
        """Return the operating mode (kept,) of each sample of a batch; None for a bundle without modes."""
        return modes_of(screened.inputs, self.spec)

    def judge(self, prepared: Prepared, scores: NDArray[np.float32], maps: NDArray[np.float32] | None) -> ScreenedBatch:
        """Return the p-values of raw scores (kept,); NaN and infinite scores get the smallest p-value."""
        values = scores.astype(np.float64)
        unscored = ~np.isfinite(values)
        count = int(np.count_nonzero(unscored))
        if count:
            values = np.where(unscored, UNSCORED, values)
        p = self.calibration.p_values(values, modes_of(prepared.inputs, self.spec))
        # A calibration without a tail gives no p-value below 1 / (n + 1), so set the smallest one here.
        p_values = np.where(unscored, MIN_P_VALUE, p.values)
        return ScreenedBatch(
            prepared.kept, prepared.inputs, values, p_values, p.extrapolated, maps, prepared.rejections, count
        )


class PendingScreening:
    """Batch whose scores are being computed."""

    def __init__(self, screener: Screener, prepared: Prepared, pending: Pending | EngineError | None) -> None:
        self.screener, self._prepared, self._pending = screener, prepared, pending

    def result(self) -> ScreenedBatch:
        """Wait for the scores; if the engine fails, every sample gets the smallest p-value."""
        maps = None
        if self._pending is None:
            scores = np.empty(0, dtype=np.float32)
        elif isinstance(self._pending, EngineError):
            scores = self._unscored(self._pending)
        else:
            try:
                output = self._pending.result()
                scores, maps = output.scores, output.maps
            except EngineError as error:
                scores = self._unscored(error)
        return self.screener.judge(self._prepared, scores, maps)

    def _unscored(self, error: EngineError) -> NDArray[np.float32]:
        log.error("batch_failed", bundle=self.screener.bundle_id, samples=len(self._prepared.kept), error=error)
        return np.full(len(self._prepared.kept), np.nan, dtype=np.float32)


def load_screener(bundle: Bundle, artefact: str, batch_size: int, cache_folder: Path) -> Screener:
    """Load the artefact (`auto`: the fastest on this machine, see `engines.choice`) and warm it up.

    Raises BundleError, BundleMismatchError or EngineError, whose messages say how to resolve it.
    """
    configuration = EngineConfiguration(cache_folder)
    choice = Choice((artefact,), "configured")
    if artefact == "auto":
        choice = choose_artefact(bundle, batch_size, configuration)
    missing: MissingExtraError | None = None
    for name in choice.names:
        try:
            engine = load_engine(bundle, name, configuration)
        except MissingExtraError as error:
            missing = error
            continue
        screener = Screener(bundle, name, load_preprocessor(bundle), engine)
        screener.warm_up(batch_size)
        log.info(
            "screener_ready",
            bundle=screener.bundle_id,
            artefact=name,
            reason=choice.reason if name == choice.names[0] else "engine installed",
            batch_size=batch_size,
        )
        return screener
    raise missing or EngineError(f"Bundle {bundle.manifest.bundle_id} has no artefact.")
