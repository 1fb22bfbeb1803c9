"""Port of the part of a service that judges waiting samples, in its process or in a child process."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cloud.service.event_messages import PushedEvent
from cloud.store.inbox_request import Doubles
from cloud.store.judging import WaitingSample


@dataclass(frozen=True, slots=True)
class DeviceLoad:
    """Samples of one device, and the bytes that their values take after decoding."""

    device_id: str
    samples: int
    decoded_bytes: int


@dataclass(frozen=True, slots=True)
class JudgedSamples:
    """Samples whose verdicts were stored within `seconds`, and events of them in the order of their cursors."""

    loads: Sequence[DeviceLoad]
    events: Sequence[PushedEvent]
    seconds: float


@dataclass(frozen=True, slots=True)
class AnalysisListener:
    """Functions that the analysis calls in the event loop.

    `on_judged` is called after verdicts were stored; `on_doubles` when samples that wait turn out to have been sent
    twice; `on_failure` for each error that is retried; `on_readiness` after each change of `problem`. `on_lost` is
    called when reports of the first two kinds may be lost: the waiting samples must be counted again. `takes_events`:
    whether `on_judged` needs the events, which a process without devices does not.
    """

    on_judged: Callable[[JudgedSamples], None]
    on_doubles: Callable[[Sequence[Doubles]], None]
    on_failure: Callable[[Exception], None]
    on_readiness: Callable[[], Awaitable[None]]
    on_lost: Callable[[], Awaitable[None]]
    takes_events: bool = True


class AnalysisPort(Protocol):
    """Analysis of a service; `cloud.service.analysis_part` and `cloud.service.analysis_process` implement it."""

    @property
    def problem(self) -> str:
        """Reason why no sample can be judged; empty otherwise."""
        ...

    def wake(self) -> None:
        """Start the next batch, because samples have arrived."""

    def tasks(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Return the work to run until cancelled, by name."""
        ...

    async def metrics_page(self) -> bytes:
        """Return the metrics of the analysis in the text format of Prometheus."""
        ...

    def stop(self) -> None:
        """End threads and processes; waits for a running calculation only a moment. Blocking."""


def loads_of(samples: Iterable[WaitingSample]) -> list[DeviceLoad]:
    """Return the load of each device among the samples."""
    loads: dict[str, tuple[int, int]] = {}
    for waiting in samples:
        count, decoded = loads.get(waiting.device_id, (0, 0))
        loads[waiting.device_id] = count + 1, decoded + waiting.decoded_bytes
    return [DeviceLoad(device_id, count, decoded) for device_id, (count, decoded) in loads.items()]
