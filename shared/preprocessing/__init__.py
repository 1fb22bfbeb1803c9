"""Preprocessing of samples to graph inputs and engine inputs.

Heads and analyzers read graph inputs; artefacts read engine inputs. Preprocessing is fitted on normal data. Devices and
the service run the same code, which needs NumPy and, for images, OpenCV (imported at first use). `shared.modalities`
selects the class for a modality.
"""

from shared.preprocessing.base import Prepared, Preprocessor, SeriesWindows
from shared.preprocessing.columns import InputColumns, columns_of, mask_width, modes_of
from shared.preprocessing.image import ImagePreprocessor
from shared.preprocessing.modes import ModePreprocessor, inner_spec, without_mode
from shared.preprocessing.ranges import ChannelRanges, ReadingSums, measured_positions
from shared.preprocessing.series import SeriesPreprocessor
from shared.preprocessing.tabular import TabularPreprocessor
from shared.preprocessing.video import VideoPreprocessor

__all__ = [
    "ChannelRanges",
    "ImagePreprocessor",
    "InputColumns",
    "ModePreprocessor",
    "Prepared",
    "Preprocessor",
    "ReadingSums",
    "SeriesPreprocessor",
    "SeriesWindows",
    "TabularPreprocessor",
    "VideoPreprocessor",
    "columns_of",
    "inner_spec",
    "mask_width",
    "measured_positions",
    "modes_of",
    "without_mode",
]
