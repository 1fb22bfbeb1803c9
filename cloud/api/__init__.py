"""Python API: detectors that are fitted, scored and saved as signed bundles; `vedette` exports them."""

from cloud.api.detector import Detector
from cloud.api.estimator import VectorDetector
from cloud.api.scores import SampleScore, Scores

__all__ = ["Detector", "SampleScore", "Scores", "VectorDetector"]
