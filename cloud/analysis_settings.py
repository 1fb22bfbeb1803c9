"""Settings of the analysis: its device and batches, and its replicas on a Ray cluster."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from shared.addresses import Address
from shared.settings import Settings


def _check_ray_address(text: str) -> str:
    if text not in ("", "local") and Address.parse(text).port == 0:
        raise ValueError('write host:port of the head of the cluster, or "local"')
    return text


RayAddress = Annotated[str, AfterValidator(_check_ray_address)]


class RaySettings(Settings):
    """Replicas of the analysis on a Ray cluster."""

    address: RayAddress = Field(
        default="",
        title="Ray cluster",
        description="local: a cluster on this machine; host:port: the head of a cluster; empty: judge in this process",
    )
    application: str = Field(
        default="vedette",
        pattern=r"^[a-z0-9][a-z0-9-]{0,39}$",
        title="Application",
        description="name of the replicas in the cluster; each service in it needs a name of its own",
    )
    min_replicas: int = Field(
        default=1, ge=0, le=1024, title="Fewest replicas", description="number of replicas kept while nothing waits"
    )
    max_replicas: int = Field(
        default=2, ge=1, le=1024, title="Most replicas", description="largest number of replicas while samples wait"
    )
    gpus_per_replica: float = Field(
        default=0.0, ge=0, le=64, title="GPUs", description="GPUs of a replica; a fraction shares one; 0 uses none"
    )
    cpus_per_replica: float = Field(
        default=1.0, gt=0, le=256, title="Cores", description="CPU cores that Ray reserves for a replica"
    )
    request_s: float = Field(
        default=600.0,
        gt=0,
        le=86_400,
        title="Request",
        description="seconds that a replica may need for a batch before it is replaced",
    )

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is larger than max_replicas {self.max_replicas}: raise max_replicas"
            )
        if self.gpus_per_replica > 1 and self.gpus_per_replica % 1:
            raise ValueError("gpus_per_replica is a whole number, or a fraction below 1")
        return self


class AnalysisSettings(Settings):
    """Settings of the analysis."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", title="Device", description="auto, cpu or cuda; auto uses CUDA if there is one"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        title="Precision",
        description="fp32; bf16 for the networks of bundles that pass its check; auto: bf16 on GPUs that have it",
    )
    compile: bool = Field(
        default=False,
        title="Compile",
        description="true: denoisers run compiled on a GPU; the first batches of a bundle then take a minute",
    )
    batch_size: int = Field(
        default=64, ge=1, le=4096, title="Batch size", description="largest number of samples judged at once"
    )
    batch_s: float = Field(
        default=600.0,
        ge=1,
        le=86_400,
        title="Batch time",
        description="seconds that a batch, or loading a bundle, may take before the process that judges is replaced",
    )
    false_alarm_rate: float = Field(
        default=0.01,
        gt=0,
        lt=1,
        title="False-alarm rate",
        description="share of normal samples that may be judged anomalous: the largest anomalous fused p-value",
    )
    adaptive_depth: bool = Field(
        default=False,
        title="Adaptive depth",
        description="true: analyzers that cannot change a decision are left out, and some p-values are upper bounds",
    )
    cached_bundles: int = Field(
        default=8, ge=1, le=256, title="Cached bundles", description="number of bundles kept in memory"
    )
    cached_bytes: int = Field(
        default=4 * 2**30,
        ge=1,
        title="Memory of bundles",
        description="bytes of the bundles in memory, the least recently used leave first; one bundle may have more",
    )
    ray: RaySettings = RaySettings()

    @model_validator(mode="after")
    def _has_gpus(self) -> Self:
        if self.ray.address and self.device == "cuda" and not self.ray.gpus_per_replica:
            raise ValueError('device = "cuda" needs GPUs for the replicas: set ray.gpus_per_replica to 1')
        return self
