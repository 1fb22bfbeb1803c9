"""Judge whose analysis runs in replicas: it cuts batches into parts, which several replicas judge at once."""

import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.serving.ports import EarlyDecision
from cloud.serving.replicas.messages import answers_of, request_of
from shared.bundle import Manifest
from shared.errors import SampleRejected
from shared.samples import ImageCrop, Values, Verdict
from vedette.v1 import judge_pb2

PART_S = 0.05  # of analysis: smaller parts would spend much of their time on the way

Send: TypeAlias = Callable[[Sequence[judge_pb2.JudgeRequest]], list[judge_pb2.JudgeReply]]


class RemoteJudge:
    """Analysis of one bundle in replicas.

    `send` passes requests to replicas at the same time and returns their replies, in order. It raises
    ConnectionFailedError while no replica can be reached; the samples then stay in the queue. `part_size` is the
    largest number of samples in a request, `replicas` the number of requests worth sending at once.
    """

    def __init__(self, bundle: judge_pb2.BundleReference, send: Send, *, part_size: int, replicas: int) -> None:
        self._bundle, self._send = bundle, send
        self._part_size, self._replicas = part_size, replicas
        self._sample_s = 0.0

    def load(self) -> None:
        """Let one replica load the bundle; raises BundleError, StorageError or ConnectionFailedError. Blocking."""
        for reply in self._send([judge_pb2.JudgeRequest(bundle=self._bundle)]):
            answers_of(reply)

    def judge(
        self, values: Sequence[Values], crops: Sequence[ImageCrop | None], early: EarlyDecision | None = None
    ) -> list[Verdict | SampleRejected]:
        """Return one answer for each sample, in order. Blocking."""
        requests = []
        for part in self._parts(len(values)):
            allowed = None if early is None else early.at(range(part.start, part.stop))
            requests.append(request_of(self._bundle, values[part], crops[part], allowed))
        replies = self._send(requests)
        answers = [answer for reply in replies for answer in answers_of(reply)]
        if answers:
            self._sample_s = sum(reply.seconds for reply in replies) / len(answers)
        return answers

    def _parts(self, samples: int) -> list[slice]:
        """Return equal parts that take at least PART_S each, and have at most `part_size` samples."""
        busy = min(self._replicas, math.ceil(samples * self._sample_s / PART_S), samples)
        count = max(busy, math.ceil(samples / self._part_size), 1)
        edges = [samples * number // count for number in range(count + 1)]
        return [slice(start, stop) for start, stop in itertools.pairwise(edges)]


def bundle_reference(manifest: Manifest, trusted_keys: Iterable[Ed25519PublicKey]) -> judge_pb2.BundleReference:
    """Return what a replica needs to find and verify a bundle."""
    return judge_pb2.BundleReference(
        bundle_id=manifest.bundle_id,
        manifest_sha256=hashlib.sha256(manifest.to_bytes()).digest(),
        trusted_keys=[key.public_bytes_raw() for key in trusted_keys],
    )
