"""Options of the replicas and of the process that deploys them, and how that process is called."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

SERVICE, JUDGE, STATUS = "vedette.v1.Replicas", "Judge", "Status"
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """Settings of a replica.

    Attributes:
        data_dir: Data directory of the service; its bundles are read if `bundles_url` is empty.
        bundles_url: URL of the bundle store.
        device: PyTorch device: "auto", "cpu" or "cuda".
        precision: Precision of the networks.
        compiled: Whether denoisers are compiled.
        false_alarm_rate: Largest fused p-value of an anomalous sample.
        cached_bundles: Largest number of bundles in memory.
        cached_bytes: Largest number of their bytes.
        request_s: Seconds that a request may take before the replica counts as unhealthy.
    """

    data_dir: str
    bundles_url: str
    device: str
    precision: Literal["fp32", "bf16", "auto"]
    compiled: bool
    false_alarm_rate: float
    cached_bundles: int
    cached_bytes: int
    request_s: float


@dataclass(frozen=True, slots=True)
class ReplicaScale:
    """Number and size of the replicas; `gpus` and `cpus` of each."""

    min_replicas: int
    max_replicas: int
    gpus: float
    cpus: float


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """Options of the process between service and cluster.

    Attributes:
        folder: Folder of the socket, and of a local cluster.
        address: "local" or the address of the cluster's head.
        application: Name of the application in the cluster.
        version: Version of Vedette; replicas of another version are replaced.
        replica: Settings of each replica.
        scale: Number and size of the replicas.
    """

    folder: str
    address: str
    application: str
    version: str
    replica: ReplicaOptions
    scale: ReplicaScale

    @classmethod
    def from_json(cls, text: str) -> "FrontOptions":
        """Return the options that `to_json` wrote."""
        facts = json.loads(text)
        facts["replica"], facts["scale"] = ReplicaOptions(**facts["replica"]), ReplicaScale(**facts["scale"])
        return cls(**facts)

    def to_json(self) -> str:
        """Return the options as text."""
        return json.dumps(asdict(self))

    @property
    def target(self) -> str:
        """Address of the process for gRPC: a Unix socket."""
        return f"unix:{self.folder}/front"

    @property
    def deployment(self) -> str:
        """Name of the deployment, another one for other options of the replicas."""
        facts = json.dumps([self.version, asdict(self.replica), asdict(self.scale)]).encode()
        return f"analysis-{hashlib.sha256(facts).hexdigest()[:8]}"
