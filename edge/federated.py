"""A device's part of a federated round: training of the received head on its own normal samples.

No other module of `edge` may load torch. Flower runs this one in a separate process for each message, so the agent
never loads torch. Samples do not leave the device: the reply holds the arrays of the head and three numbers, or an
error text without samples and paths.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from pydantic import ValidationError

from edge.normal_buffer import PURPOSE, NormalSnapshot, load_snapshot
from edge.sealing import Seal
from shared import federation
from shared.diffusion.distillation import DistillationSettings, distill_head, local_teacher
from shared.diffusion.perturbation import InputLayout, subsample
from shared.diffusion.time_estimation import TimeEstimationHead
from shared.errors import FederationError, SettingsError, VedetteError

# Upper limits of the settings that a server may request.
MAX_SETTINGS = {
    "steps": 20_000,
    "max_seconds": 300.0,
    "batch_size": 4096,
    "perturbed": 200_000,
    "max_reference": 20_000,
}
MAX_PARAMETERS = 20_000_000
CODE_REFUSED = 100  # above Flower's own error codes

logger = logging.getLogger("vedette.federated")
app = ClientApp()


@app.train()
def answer(message: Message, context: Context) -> Message:
    """Train on this device's normal buffer and reply with the trained arrays, or with an error and its reason."""
    try:
        content = train_head(message.content, context.node_config, node_id=context.node_id)
    except VedetteError as error:
        logger.error("refused: %s", error)
        return Message(Error(code=CODE_REFUSED, reason=str(error)), reply_to=message)
    return Message(content, reply_to=message)


def train_head(request: RecordDict, node_config: Mapping[str, Any], *, node_id: int) -> RecordDict:
    """Return the reply to one training message: the trained arrays and metrics, with the number of samples as weight.

    `node_config` names the buffer, which is one snapshot or a folder of snapshots. Raises FederationError if the
    request is malformed or there are too few normal samples of that preprocessing; its text may leave the device.
    """
    config = request[federation.CONFIG]
    settings = limited_distillation(str(config[federation.KEY_DISTILLATION]))
    arrays = {name: array.numpy() for name, array in request[federation.ARRAYS].items()}
    head = _head(arrays)
    normals = normal_samples(
        Path(str(node_config[federation.NODE_BUFFER])),
        str(config[federation.KEY_PREPROCESSING_ID]),
        head.dim,
        _seal(node_config.get(federation.NODE_BUFFER_KEY)),
    )
    needed = max(int(config[federation.KEY_MIN_SAMPLES]), 2)
    if len(normals) < needed:
        raise FederationError(f"this device has {len(normals)} normal samples, and {needed} are needed")
    torch.set_num_threads(int(node_config.get(federation.NODE_THREADS, 1)))
    generator = torch.Generator().manual_seed((node_id + int(config[federation.KEY_ROUND])) % 2**63)
    started_s = time.monotonic()
    vectors = subsample(torch.from_numpy(normals), settings.max_reference, generator)
    teacher = local_teacher(head, vectors, settings.neighbours)
    layout = _layout(config, head.dim)
    loss = distill_head(head, vectors, settings=settings, generator=generator, teacher=teacher, layout=layout)
    metrics = {
        federation.METRIC_SAMPLES: len(normals),
        federation.METRIC_LOSS: float(loss),
        federation.METRIC_TRAIN_SECONDS: time.monotonic() - started_s,
    }
    trained = {name: Array(value) for name, value in head.to_arrays().items()}
    return RecordDict(
        {federation.ARRAYS: ArrayRecord(trained), federation.METRICS: MetricRecord(metrics)},
    )


def normal_samples(buffer: Path, preprocessing_id: str, dim: int, seal: Seal | None = None) -> NDArray[np.float32]:
    """Return the normal graph inputs (n, dim) of that preprocessing in a snapshot, or in all snapshots of a folder.

    Snapshots of another preprocessing are omitted, because their values have another meaning. Raises FederationError if
    no sample remains, or if the samples do not fit the head.
    """
    paths = sorted(buffer.glob("*.npz")) if buffer.is_dir() else [buffer]
    snapshots = [snapshot for path in paths if (snapshot := _snapshot(path, seal)) is not None]
    if not snapshots:
        raise FederationError("this device has no readable normal buffer yet")
    fitting = [snapshot.inputs for snapshot in snapshots if snapshot.preprocessing_id == preprocessing_id]
    if not fitting:
        raise FederationError("this device's normal samples were prepared by another preprocessing than the head's")
    if any(inputs.ndim != 2 or inputs.shape[1] != dim for inputs in fitting):
        raise FederationError(f"this device's normal samples do not have the {dim} values the head takes")
    normals = np.concatenate(fitting).astype(np.float32, copy=False)
    return normals[np.isfinite(normals).all(axis=1)]


def _seal(key_file: Any) -> Seal | None:
    if key_file is None:
        return None
    try:
        return Seal.from_file(Path(str(key_file)), PURPOSE)
    except SettingsError as error:
        logger.error("no key of the normal buffer: %s", error)
        raise FederationError("this device cannot read the key of its normal buffer") from None


def _snapshot(path: Path, seal: Seal | None) -> NormalSnapshot | None:
    try:
        return load_snapshot(path, seal)
    except VedetteError as error:
        logger.warning("skipped a normal buffer: %s", error)
        return None


def _head(arrays: Mapping[str, NDArray[Any]]) -> TimeEstimationHead:
    if sum(array.size for array in arrays.values()) > MAX_PARAMETERS:
        raise FederationError(f"the head has more than {MAX_PARAMETERS} parameters")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise FederationError("the head's arrays are not finite")
    try:
        return TimeEstimationHead.from_arrays(arrays)
    except ValueError as error:
        raise FederationError(f"the arrays are not a head: {error}") from None


def _layout(config: Mapping[str, Any], dim: int) -> InputLayout:
    """Return the columns that hold no values; 0 for servers of older versions, whose bundles have no such columns."""
    layout = InputLayout(int(config.get(federation.KEY_MASKED, 0)), int(config.get(federation.KEY_MODES, 0)))
    used = 2 * layout.masked + layout.modes
    if min(layout.masked, layout.modes) < 0 or (used != dim if layout.masked else used >= dim):
        raise FederationError("the round's layout does not fit the head's inputs")
    return layout


def limited_distillation(text: str) -> DistillationSettings:
    """Return the requested settings, bounded by MAX_SETTINGS so that a server cannot occupy a device for hours."""
    try:
        requested = DistillationSettings.model_validate_json(text)
    except ValidationError:
        raise FederationError(
            "the round's training settings are not valid; the server may be of another version"
        ) from None
    return requested.model_copy(
        update={name: min(getattr(requested, name), maximum) for name, maximum in MAX_SETTINGS.items()}
    )
