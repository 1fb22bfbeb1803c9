"""What a device does in a federated round: train the head it is sent on its own normal samples.

This is the one module of `edge` that may load torch. Flower starts it in a process of its own for each message, so the
agent beside it never does. The samples stay here: the answer is the head's arrays and three numbers, or a refusal in
words that hold neither a sample nor a path.
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

# What a device grants a round at most, whatever the server asks for.
GRANTED = {"steps": 20_000, "max_seconds": 300.0, "batch_size": 4096, "perturbed": 200_000, "max_reference": 20_000}
MAX_PARAMETERS = 20_000_000
CODE_REFUSED = 100  # above Flower's own error codes

logger = logging.getLogger("vedette.federated")
app = ClientApp()


@app.train()
def answer(message: Message, context: Context) -> Message:
    """Train on this device's normal buffer and answer with the trained arrays, or with an error that says why not."""
    try:
        content = train_head(message.content, context.node_config, node_id=context.node_id)
    except VedetteError as error:
        logger.error("refused: %s", error)
        return Message(Error(code=CODE_REFUSED, reason=str(error)), reply_to=message)
    return Message(content, reply_to=message)


def train_head(request: RecordDict, node_config: Mapping[str, Any], *, node_id: int) -> RecordDict:
    """The answer to one training message: the trained arrays and their metrics, weighted by the number of samples.

    `node_config` names the buffer, which is one snapshot or a folder of them. Raises FederationError, in words fit to
    leave the device, if the request is malformed or there are too few normal samples of that preprocessing.
    """
    config = request[federation.CONFIG]
    settings = granted_distillation(str(config[federation.KEY_DISTILLATION]))
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
    """The normal graph inputs (n, dim) of that preprocessing in a snapshot, or in all snapshots of a folder.

    Snapshots of another preprocessing are left out, for their numbers mean other things. Raises FederationError if
    nothing is left, or if it does not fit the head.
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
        raise FederationError(f"the head has more than the {MAX_PARAMETERS} parameters a device takes")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise FederationError("the head's arrays are not finite")
    try:
        return TimeEstimationHead.from_arrays(arrays)
    except ValueError as error:
        raise FederationError(f"the arrays are no head: {error}") from None


def _layout(config: Mapping[str, Any], dim: int) -> InputLayout:
    """Which inputs are no values. A server of an older version does not say, and its bundles have none such."""
    layout = InputLayout(int(config.get(federation.KEY_MASKED, 0)), int(config.get(federation.KEY_MODES, 0)))
    used = 2 * layout.masked + layout.modes
    if min(layout.masked, layout.modes) < 0 or (used != dim if layout.masked else used >= dim):
        raise FederationError("the round's layout does not fit the head's inputs")
    return layout


def granted_distillation(text: str) -> DistillationSettings:
    """The settings a round asks for, within what a device grants: the server cannot keep it busy for hours."""
    try:
        asked = DistillationSettings.model_validate_json(text)
    except ValidationError:
        raise FederationError(
            "the round's training settings are not valid; the server may be of another version"
        ) from None
    return asked.model_copy(update={name: min(getattr(asked, name), most) for name, most in GRANTED.items()})
