"""Messages between the benchmark and its client processes, as JSON files."""

from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel

from cloud.bench.setup import SimulatedDevice

CONNECTED = "connected"  # printed by a client process when all its devices are


class ClientKind(StrEnum):
    """Behaviour of the devices of a client process."""

    HONEST = "honest"
    HOSTILE = "hostile"


class PlannedDevice(BaseModel):
    """Device of a plan: its id, key and certificate as PEM."""

    device_id: str
    key_pem: str
    certificate_pem: str

    @classmethod
    def of(cls, device: SimulatedDevice) -> "PlannedDevice":
        """Return a device for a plan."""
        return cls(
            device_id=device.device_id,
            key_pem=device.key_pem.decode(),
            certificate_pem=device.certificate_pem.decode(),
        )


class ClientPlan(BaseModel):
    """Work of one client process.

    Attributes:
        bundle_id: bundle of the samples, rows of `rows`, an NPY file of shape (rows, features).
        other_bundle_ids: older versions of it, which hostile devices name in turn.
        image_bundle_id: bundle of images for hostile devices; empty if there is none.
        attacks: names of the attacks of hostile devices; empty for all.
        image_side: height and width in pixels of the images of hostile devices.
        rate: samples a second of an honest device.
        seconds: length of the run, from the time at which `start_file` exists.
        drain_s: longest wait for the last answers and verdicts.
    """

    kind: ClientKind
    address: str
    enrolment_address: str
    ca_pem: str
    planned: list[PlannedDevice]
    bundle_id: str
    other_bundle_ids: list[str] = []
    image_bundle_id: str = ""
    attacks: tuple[str, ...] = ()
    image_side: int = 8192
    rows: Path
    rate: float
    seconds: float
    drain_s: float
    seed: int
    start_file: Path
    result: Path

    def devices(self) -> list[SimulatedDevice]:
        """Return the devices."""
        return [
            SimulatedDevice(item.device_id, item.key_pem.encode(), item.certificate_pem.encode(), self.ca_pem.encode())
            for item in self.planned
        ]


class ClientResult(BaseModel):
    """Measurements of one client process.

    Attributes:
        produced: samples that the devices made.
        acknowledged: samples that the service has acknowledged.
        lost: acknowledged samples whose verdict did not reach their device.
        acknowledged_ms: milliseconds from a sample's capture to its acknowledgement.
        verdict_ms: milliseconds from a sample's capture to its verdict at the device.
        answers: number of answers by their code, for hostile devices with the name of the attack before it.
        cpu_s: processor time of the process in the run.
    """

    produced: int = 0
    acknowledged: int = 0
    lost: int = 0
    acknowledged_ms: list[float] = []
    verdict_ms: list[float] = []
    answers: dict[str, int] = {}
    cpu_s: float = 0.0

    def add(self, other: "ClientResult") -> None:
        """Add the measurements of another process."""
        self.produced += other.produced
        self.acknowledged += other.acknowledged
        self.lost += other.lost
        self.acknowledged_ms += other.acknowledged_ms
        self.verdict_ms += other.verdict_ms
        for name, count in other.answers.items():
            self.answers[name] = self.answers.get(name, 0) + count
        self.cpu_s += other.cpu_s
