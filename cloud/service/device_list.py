"""List of devices for `vedette cloud devices`: a table, and below it their warnings."""

from cloud.devices import DeviceView, RunningView
from cloud.words import NO_FIGURE, SPACE, THIN_SPACE, duration_words, share_words
from shared.clocks import MAX_CLOCK_ERROR_S, clock_words
from shared.terminal import new_console, print_table

HEADER = (
    "device",
    "site",
    "group",
    "health",
    "source",
    "bundle",
    "wanted",
    "sent",
    "last contact",
    "clock",
    "certificate",
)
TEXTS = (0, 1, 2, 3, 4, 5, 6, 9)  # columns aligned left


def show_devices(devices: list[DeviceView], now_s: float, service_runs: bool | None) -> None:
    """Print a row for each source of each device, and a line for each advice and warning."""
    console = new_console()
    if service_runs is False:
        text = "The service does not run: these are the last heartbeats. Start it with vedette cloud serve."
        console.print(text, soft_wrap=True)
    if not devices:
        console.print("No device is enrolled yet: make a token with vedette cloud token.", soft_wrap=True)
        return
    print_table(console, "Devices", HEADER, [row for each in devices for row in _rows(each, now_s)], left=TEXTS)
    for device in devices:
        for text in filter(None, (device.advice, *device.warnings)):
            console.print(f"{device.device_id}: {_plain(text)}", markup=False, soft_wrap=True)


def _rows(device: DeviceView, now_s: float) -> list[list[str]]:
    """Return a row for each source, or one for a device without any."""
    figures, seen_at_s, offset_s = device.figures, device.heartbeat_at_s, device.clock_offset_s
    of_device = [
        share_words(figures.samples_sent, figures.samples_screened),
        "never" if seen_at_s is None else f"{duration_words(max(0.0, now_s - seen_at_s))} ago",
        clock_words(offset_s, "the service") if offset_s is not None and abs(offset_s) > MAX_CLOCK_ERROR_S else "",
        _certificate(device.certificate_expires_at_s - now_s),
    ]
    rows = []
    for source_id, running, wanted in [_bundles(source) for source in device.running] or [("", "", "")]:
        cells = [source_id, running or NO_FIGURE, wanted if wanted != running else ""]
        rows.append([device.device_id, device.site, device.group, device.health, *cells, *of_device])
    return [[_plain(cell) for cell in row] for row in rows]


def _bundles(source: RunningView) -> tuple[str, str, str]:
    return source.source_id, source.bundle_id, source.wanted_bundle_id


def _certificate(left_s: float) -> str:
    return f"{duration_words(left_s)} left" if left_s > 0 else "expired"


def _plain(text: str) -> str:
    """Return a text with ordinary spaces, so that it can be searched, on one line."""
    return " ".join(text.replace(SPACE, " ").replace(THIN_SPACE, " ").split())
