"""Sources of samples.

To add a source, write a module with a class like the others, its settings in `edge.settings.sources`, and one line in
`open_source`.
"""

import threading

from edge.settings.sources import (
    CameraSettings,
    ImageFolderSettings,
    MqttSettings,
    PluginSettings,
    ReplaySettings,
    SourceSettings,
    StdinSettings,
    TailSettings,
)
from edge.sources.base import Pacer, Source
from edge.sources.camera import CameraSource
from edge.sources.clips import ClipSampler, FrameSampler
from edge.sources.health import SourceHealth
from edge.sources.images import ImageFolderSource
from edge.sources.mqtt import MqttSource
from edge.sources.plugins import open_plugin
from edge.sources.replay import RowReplay, WindowReplay
from edge.sources.stdin import StdinSource
from edge.sources.tail import TailSource
from edge.sources.watched import WatchedFolder
from shared.bundle import InputSpec
from shared.errors import BundleMismatchError
from shared.modalities import sample_type
from shared.modality import Modality

__all__ = ["Source", "SourceHealth", "open_source"]


def open_source(
    settings: SourceSettings, modality: Modality, spec: InputSpec, stop: threading.Event, cursor: str = ""
) -> Source:
    """Open a source that gives samples in the form of `spec` until `stop` is set.

    `cursor`: cursor of its last batch that is on disk, to resume after it; "" if there is none.

    Raises DataError if its file or folder cannot be used, BundleMismatchError if its bundle is for another modality.
    """
    pacer = Pacer(
        settings.rate_per_s,
        settings.batch_size_for(sample_type(modality).usual_batch_size(spec)),
        settings.stop_after_s,
        stop,
    )
    match settings, modality:
        case MqttSettings(), Modality.TABULAR | Modality.SERIES:
            return MqttSource(settings, modality, spec, pacer)
        case TailSettings(), Modality.TABULAR | Modality.SERIES:
            return TailSource(settings, modality, spec, pacer, stop, cursor)
        case StdinSettings(), Modality.TABULAR | Modality.SERIES:
            return StdinSource(settings, modality, spec, pacer)
        case PluginSettings(), _:
            return open_plugin(settings, modality, spec, stop)
        case ImageFolderSettings(watch=True), Modality.IMAGE:
            return WatchedFolder(settings, spec, pacer, stop, cursor)
        case ImageFolderSettings(), Modality.IMAGE:
            return ImageFolderSource(settings, spec, pacer)
        case CameraSettings(), Modality.IMAGE:
            return CameraSource(settings, FrameSampler(settings), pacer)
        case CameraSettings(), Modality.VIDEO:
            return CameraSource(settings, ClipSampler(settings, spec), pacer)
        case ReplaySettings(), Modality.TABULAR:
            return RowReplay(settings, spec, pacer)
        case ReplaySettings(), Modality.SERIES:
            return WindowReplay(settings, spec, pacer)
    raise BundleMismatchError(
        f"Source {settings.id!r} is of kind {settings.kind!r}, and its bundle screens {modality} samples: "
        "choose another kind or another bundle."
    )
