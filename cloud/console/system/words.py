"""Figures of the service in words."""

from typing import Any

from cloud.system.figures import SystemFigures, WindowFigures
from cloud.words import NO_FIGURE, SPACE, bytes_words, count_words, duration_words, share_words

RETENTION_WORDS = {
    "payloads_days": "Payloads",
    "verdicts_days": "Verdicts",
    "labelled_days": "Labelled samples",
    "events_days": "Events, closed notices",
    "history_days": "History of devices",
}


def figures_in_words(figures: SystemFigures) -> dict[str, Any]:
    """Return the figures as the page shows them."""
    latency, queues, storage, machine = figures.latency, figures.queues, figures.storage, figures.machine
    return {
        "now_s": figures.now_s,
        "throughput": [_window(window) for window in figures.throughput],
        "latency": [
            ("From arrival, half", _seconds(latency.from_arrival_median_s)),
            ("From arrival, 95 in 100", _seconds(latency.from_arrival_p95_s)),
            ("From capture, half", _seconds(latency.from_capture_median_s)),
            ("From capture, 95 in 100", _seconds(latency.from_capture_p95_s)),
        ],
        "latency_of": count_words(latency.verdicts),
        "queues": [
            ("Wait for a verdict", count_words(queues.waiting_samples)),
            ("Oldest of them", _seconds(queues.oldest_waiting_s)),
            ("In the spools of devices", count_words(queues.spooled_samples)),
            ("Messages for sinks", count_words(queues.waiting_messages)),
        ],
        "longest": [(device_id, count_words(count)) for device_id, count in queues.devices],
        "storage": [
            ("Store", f"{storage.kind}, {bytes_words(storage.store_bytes)}"),
            ("Verdicts", count_words(storage.verdicts)),
            ("Free on the disk", _part_of(machine.disk_free_bytes, machine.disk_bytes)),
        ],
        "oldest_verdict_at_s": storage.oldest_verdict_at_s,
        "retention": [
            (RETENTION_WORDS.get(name, name), f"{days:g}{SPACE}days" if days else "unlimited")
            for name, days in storage.retention_days.items()
        ],
        "machine": [
            ("Load", f"{machine.load:.1f} of {machine.cores} cores"),
            ("This process", _cores(machine.process_cores)),
            ("Memory free", _part_of(machine.memory_free_bytes, machine.memory_bytes)),
            ("Memory of this process", _bytes(machine.process_memory_bytes)),
        ],
        "gpus": [
            (
                gpu.name,
                f"{share_words(gpu.use_share, 1) if gpu.use_share is not None else NO_FIGURE} busy, "
                f"{_bytes(gpu.memory_used_bytes)} of {_bytes(gpu.memory_bytes)}"
                + (f", {gpu.temperature_c:g}{SPACE}°C" if gpu.temperature_c is not None else ""),
            )
            for gpu in machine.gpus
        ],
    }


def _window(window: WindowFigures) -> tuple[str, str, str]:
    """Return time, verdicts a second and their number."""
    count = f"{'more than ' if window.is_more else ''}{count_words(window.verdicts)} verdicts"
    return f"last {duration_words(window.seconds)}", f"{window.verdicts / window.seconds:.3g}", count


def _seconds(seconds: float | None) -> str:
    return NO_FIGURE if seconds is None else duration_words(seconds)


def _bytes(size: float | None) -> str:
    return NO_FIGURE if size is None else bytes_words(size)


def _part_of(part: float | None, whole: float | None) -> str:
    return NO_FIGURE if part is None or whole is None else f"{bytes_words(part)} of {bytes_words(whole)}"


def _cores(cores: float | None) -> str:
    return NO_FIGURE if cores is None else f"{cores:.2f} cores"
