"""Images in training."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cloud.methods import Need
from cloud.methods.encoders import Encoder, ImageEncoder, PatchEncoder
from cloud.serving.encoding import Samples
from cloud.training.data import TrainingData
from cloud.training.encoders import choose_size, corrupt, corrupted_patches, fit_image_encoder
from cloud.training.encoders.corrupted_patches import MAX_PIXELS
from cloud.training.examples import normal_examples
from cloud.training.judgement.pixels import IMAGE_CORRUPTIONS, copies_of, corrupted_pixels, picture_statistics
from cloud.training.modalities.base import EncodedModality
from cloud.training.samples import MIN_TRAIN, Split, random_shares
from cloud.training.samples.images import ImageData, depth_note, find_images, learn_pixel_range, read_image
from cloud.training.screeners import ScreenerModule, image_screener
from cloud.training.settings import DataSettings, TrainingSettings
from cloud.training.teachers import patch_teacher
from shared.bundle import InputSpec
from shared.calibration import MIN_CALIBRATION_SIZE
from shared.diffusion.distillation import Teacher
from shared.diffusion.local_corruption import CorruptedPatches
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.diffusion.training import Progress
from shared.errors import DataError, SampleRejected
from shared.images import PixelRange
from shared.modality import Modality
from shared.preprocessing import ImagePreprocessor

if TYPE_CHECKING:
    from cloud.serving.analysis import Analysis

READ_BATCH = 64
SIZED_IMAGES = 50  # images that the size of the graph is chosen from
MAX_WEIGHING_COPIES, MAX_CORRUPTED_PLACES = 30, 2
MAX_TRAINING_PIXELS = 1000 * 640 * 640  # of all good images; a core encodes them in minutes, not hours


class TrainingImage(EncodedModality):
    """Good images, split at random unless the user set some apart to calibrate on."""

    name = Modality.IMAGE
    sample_word = "images"
    scales_places = True
    untaught = frozenset({Need.PATCH_GRID})

    def find(self, path: Path, settings: DataSettings, *, to_judge: bool) -> TrainingData:
        """Find the images of a folder. Raises DataError where there are none."""
        return find_images(path, to_judge=to_judge)

    def form_settings(self, spec: InputSpec) -> dict[str, dict[str, int]]:
        """Return the height and the width of images, in pixels."""
        return {"image": {"height": spec.image_height, "width": spec.image_width}}

    def split(
        self,
        data: TrainingData,
        settings: TrainingSettings,
        generator: np.random.Generator,
        progress: Progress | None,
    ) -> Split:
        """Decode the images at the size of the graph and split them."""
        assert isinstance(data, ImageData)
        chosen = generator.permutation(len(data.good))[: settings.image.max_images]
        spec = _input_spec([data.good[index] for index in chosen[:SIZED_IMAGES]], settings)
        bound = max(MIN_TRAIN + MIN_CALIBRATION_SIZE, MAX_TRAINING_PIXELS // (spec.image_height * spec.image_width))
        chosen = chosen[:bound]
        reader = _Reader(spec, settings, len(chosen) + len(data.held_out) + len(data.test), progress)
        good, readable = reader.read([data.good[index] for index in chosen])
        order = None
        if data.held_out:
            train_images, held_out_images = _checked_parts(data, good, reader.read(data.held_out)[0])
        else:
            train, held_out = random_shares(len(good), settings, generator, data.origin, "good images")
            train_images, held_out_images = good[train], good[held_out]
            order = chosen[readable][held_out]
        notes = data.notes
        if (pixel_range := PixelRange.of(spec.pixel_range)) is not None:
            notes += (depth_note(data.good, pixel_range),)
        if len(chosen) < min(len(data.good), settings.image.max_images):
            notes += (f"{len(chosen)} of {len(data.good)} good images are used: more of this size would take too long",)
        if len(good) < len(chosen):
            notes += (f"{len(chosen) - len(good)} unreadable or constant images were left out",)
        if data.test_labels is None:
            return Split(spec, train_images, held_out_images, None, None, notes, order)
        test, kept = reader.read(data.test, may_be_constant=True)
        return Split(spec, train_images, held_out_images, test, data.test_labels[kept], notes, order)

    def corrupted_copies(self, normal: NDArray[Any], spec: InputSpec, seed: int) -> dict[str, NDArray[Any]]:
        """Return copies of normal images with stains, scratches, missing pieces, blur and shifted colours."""
        return corrupted_pixels(IMAGE_CORRUPTIONS, normal, copies_of(normal), seed)

    def weighing_copies(self, encoder: Encoder | None, held_out: Samples, seed: int) -> Samples:
        """Return copies of at most MAX_WEIGHING_COPIES images, each corrupted in one or two places."""
        generator = np.random.default_rng([seed % 2**32, len(held_out)])
        chosen = generator.permutation(len(held_out))[:MAX_WEIGHING_COPIES]
        bilevel = bool(getattr(encoder, "bilevel", False))
        images, others = held_out.inputs[chosen], held_out.inputs[generator.permutation(len(held_out))[: len(chosen)]]
        copies = [
            corrupt(image, other, generator, bilevel=bilevel, max_places=MAX_CORRUPTED_PLACES)[0]
            for image, other in zip(images, others, strict=True)
        ]
        return Samples.prepare(held_out.preprocessor, np.stack(copies))

    def statistics(self, samples: NDArray[Any], spec: InputSpec) -> tuple[tuple[str, ...], NDArray[np.float64]]:
        """Return brightness, contrast and sharpness of images."""
        return picture_statistics(samples)

    def fit_encoder(
        self, train: NDArray[Any], settings: TrainingSettings, generator: torch.Generator, progress: Progress
    ) -> tuple[PatchEncoder, Tensor]:
        """Return the image encoder fitted on normal images, and patch vectors of them."""
        return fit_image_encoder(train, generator=generator, dim=settings.image.feature_dim, progress=progress)

    def corrupted_patches(
        self, encoder: Encoder | None, inputs: NDArray[Any], seed: int, effort: float, progress: Progress
    ) -> CorruptedPatches | None:
        """Return patches of corrupted copies of normal images, as the image encoder sees them."""
        if not isinstance(encoder, ImageEncoder):
            return None
        return corrupted_patches(encoder, inputs, seed=seed, max_pixels=effort * MAX_PIXELS, progress=progress)

    def normal_examples(self, held_out: NDArray[Any], settings: TrainingSettings) -> dict[str, NDArray[Any]]:
        """Return a typical picture, and others unlike one another, as PNG files."""
        return normal_examples(held_out, settings.image.examples)

    def teacher(self, analysis: "Analysis") -> Teacher | None:
        """Return the score of single patches by the fused analyzers that compare them; None if none does."""
        return patch_teacher(analysis)

    def screener(
        self,
        encoder: PatchEncoder | None,
        head: TimeEstimationHead,
        analysis: "Analysis",
        train: NDArray[Any],
        quantisation: NDArray[Any],
        held_out: NDArray[Any],
    ) -> ScreenerModule:
        """Return encoder, head and, where local corruption was learned, its head, scaled on normal images."""
        assert isinstance(encoder, ImageEncoder)
        return image_screener(encoder, head, train, analysis.corruption_head, analysis.opinion_weights)


class _Reader:
    """Reads images at the size of the graph and reports the share that is done."""

    def __init__(self, spec: InputSpec, settings: TrainingSettings, total: int, progress: Progress | None) -> None:
        self._spec, self._drops = spec, settings.data.bad_rows == "drop"
        self._total, self._done, self._progress = total, 0, progress

    def read(
        self, paths: Sequence[Path], *, may_be_constant: bool = False
    ) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
        """Return images (n, height, width, 3), and the positions (n,) in `paths` of those that could be read.

        Raises DataError for an image that cannot be read, or of one single value, unless bad ones are to be dropped.
        """
        preprocessor = ImagePreprocessor(self._spec)
        images = [np.empty((0, self._spec.image_height, self._spec.image_width, 3), dtype=np.uint8)]
        kept: list[int] = []
        for start in range(0, len(paths), READ_BATCH):
            pixels, positions = self._decoded(paths, range(start, min(start + READ_BATCH, len(paths))), may_be_constant)
            prepared = preprocessor.prepare(pixels)
            if prepared.rejections and not self._drops:
                position, reason = prepared.rejections[0]
                raise DataError(
                    f"{paths[positions[position]]}: {reason} Remove it, or leave such out with --drop-bad-rows."
                )
            images.append(prepared.inputs)
            kept += [positions[position] for position in prepared.kept.tolist()]
            if self._progress is not None:
                self._progress((self._done + start + len(positions)) / self._total)
        self._done += len(paths)
        return np.concatenate(images), np.array(kept, dtype=np.intp)

    def _decoded(
        self, paths: Sequence[Path], chosen: range, may_be_constant: bool
    ) -> tuple[list[NDArray[np.uint8]], list[int]]:
        pixels, positions = [], []
        for position in chosen:
            try:
                image = read_image(paths[position], PixelRange.of(self._spec.pixel_range))
                if not may_be_constant:
                    _refuse_constant(image, paths[position])
                pixels.append(image)
                positions.append(position)
            except SampleRejected as error:
                if not self._drops:
                    raise DataError(f"{error} Remove it, or leave such out with --drop-bad-rows.") from None
        return pixels, positions


def _input_spec(paths: Sequence[Path], settings: TrainingSettings) -> InputSpec:
    """Return the size of the graph: as set, else chosen from these images without the unreadable ones."""
    height, width = settings.image.height, settings.image.width
    pixel_range = learn_pixel_range(paths)
    if not height:
        shapes: list[tuple[int, int]] = []
        for path in paths:
            with suppress(SampleRejected):  # reported when all images are read
                rows, columns = read_image(path, pixel_range).shape[:2]
                shapes.append((rows, columns))
        height, width = choose_size(shapes, settings.image.max_pixels)
    bounds = None if pixel_range is None else (pixel_range.low, pixel_range.high)
    return InputSpec(image_height=height, image_width=width, pixel_range=bounds)


def _refuse_constant(pixels: NDArray[np.uint8], path: Path) -> None:
    """Raise SampleRejected for an image of one single value, such as that of a covered camera."""
    if pixels.size and pixels.min() == pixels.max():
        raise SampleRejected(f"{path}: every pixel has the value {int(pixels.flat[0])}: there is nothing to see.")


def _checked_parts(
    data: ImageData, good: NDArray[np.uint8], held_out: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return both parts; raise DataError if the user set apart, or left to train on, too few images."""
    if len(good) < MIN_TRAIN or len(held_out) < MIN_CALIBRATION_SIZE:
        raise DataError(
            f"{data.origin}: {len(good)} images in train/good and {len(held_out)} in validation/good, and at least "
            f"{MIN_TRAIN} and {MIN_CALIBRATION_SIZE} are needed: give more, or remove validation/good."
        )
    return good, held_out
