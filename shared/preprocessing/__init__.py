"""The numeric part of preprocessing: from samples to graph inputs and engine inputs.

Heads and analyzers see graph inputs, artefacts take engine inputs. Fitted on normal data; devices and service run the
same code, with NumPy alone, and OpenCV (imported at first use) for images. `shared.modalities` chooses which class a
modality uses.
"""

from shared.preprocessing.base import Prepared, Preprocessor, SeriesWindows
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
    "inner_spec",
    "mask_width",
    "modes_of",
    "without_mode",
]
