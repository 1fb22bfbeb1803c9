"""Source of the image files in a folder and its subfolders, in the order of their paths."""

import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.settings.sources import ImageFolderSettings
from edge.sources.base import Pacer
from edge.sources.health import SourceHealth
from shared.bundle import InputSpec
from shared.errors import DataError, SampleRejected
from shared.images import IMAGE_SUFFIXES, PixelRange, decode_image, image_files
from shared.logs import EventLog
from shared.modality import Modality
from shared.samples import Rejection, SampleBatch

log = EventLog("images")


class ImageFolderSource:
    """Source with a sample for each image file; its origin is the path below the folder. Other files are ignored."""

    modality = Modality.IMAGE
    health = SourceHealth()  # always running: a missing folder or an empty one raises

    def __init__(self, settings: ImageFolderSettings, spec: InputSpec, pacer: Pacer) -> None:
        self.source_id = settings.id
        self._settings, self._pacer, self.is_paced = settings, pacer, pacer.is_paced
        if not settings.path.is_dir():
            raise DataError(f"{settings.path}: no such folder. Correct the path of source {settings.id!r}.")
        self._pixel_range = PixelRange.of(spec.pixel_range)
        self._files, passed_over = image_files(settings.path.rglob("*"))
        if not self._files:
            raise DataError(f"{settings.path}: contains no image ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        if passed_over:
            log.info("other_files_passed_over", source=settings.id, folder=settings.path, files=passed_over)

    def batches(self) -> Iterator[SampleBatch]:
        """See `Source.batches`."""
        if self.is_paced:
            yield from (self._read(files) for files in self._groups())
            return
        with ThreadPoolExecutor(1, thread_name_prefix="images") as reader:  # decodes the next batch in parallel
            ahead: Future[SampleBatch] | None = None
            for files in self._groups():
                coming = reader.submit(self._read, files)
                if ahead is not None:
                    yield ahead.result()
                ahead = coming
            if ahead is not None:
                yield ahead.result()

    def _groups(self) -> Iterator[Sequence[Path]]:
        """Yield the files of each batch at the time it is due."""
        size = self._pacer.batch_size
        for _ in itertools.repeat(None) if self._settings.loop else range(1):
            for start in range(0, len(self._files), size):
                files = self._files[start : start + size]
                if not self._pacer.wait(len(files)):
                    return
                yield files

    def _read(self, files: Sequence[Path]) -> SampleBatch:
        return read_images(self.source_id, self._settings.path, files, self._pixel_range)


def read_images(
    source_id: str, folder: Path, files: Sequence[Path], pixel_range: PixelRange | None = None
) -> SampleBatch:
    """Return the images in these files below the folder, each as a sample or a rejection.

    Deep images are sent as the 8-bit pixels that were screened, so that the cloud judges the same ones.
    """
    values: list[NDArray[np.uint8]] = []
    encoded, origins, rejections = [], [], []
    for path in files:
        origin = path.relative_to(folder).as_posix()
        try:
            if not path.is_file() and path.exists():  # for example a pipe, where reading may block forever
                rejections.append(Rejection(origin, "is not a file."))
                continue
            data = path.read_bytes()
            pixels = decode_image(data, origin=origin, pixel_range=pixel_range)
        except OSError as error:
            rejections.append(Rejection(origin, f"cannot be read ({error.strerror})."))
        except SampleRejected as error:
            rejections.append(Rejection(origin, str(error).removeprefix(f"{origin}: ")))
        else:
            values.append(pixels)
            encoded.append(data)
            origins.append(origin)
    moments = np.full(len(values), time.time())
    files_as_read = encoded if pixel_range is None else None
    return SampleBatch(source_id, Modality.IMAGE, values, moments, origins, files_as_read, rejections)
