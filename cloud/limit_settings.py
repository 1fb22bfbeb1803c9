"""Settings of admission: what devices, addresses and all of them together may ask of the service."""

from pydantic import Field

from shared.settings import Settings


class LimitSettings(Settings):
    """Admission control: beyond these limits, samples wait in the devices' spools."""

    backlog_samples: int = Field(
        default=50_000,
        ge=1,
        title="Backlog",
        description="largest number of waiting samples of all devices",
    )
    backlog_samples_per_device: int = Field(
        default=10_000,
        ge=1,
        title="Backlog of a device",
        description="largest number of waiting samples of one device",
    )
    decoded_bytes_per_request: int = Field(
        default=256 * 2**20,
        ge=1,
        title="Decoded request",
        description="largest number of bytes that the samples of one request decode to; one sample may have more",
    )
    decoded_bytes_per_device: int = Field(
        default=2**30,
        ge=1,
        title="Decoded backlog of a device",
        description="largest number of bytes that the waiting samples of one device decode to",
    )
    concurrent_submits: int = Field(
        default=32,
        ge=1,
        le=1024,
        title="Concurrent submits",
        description="largest number of requests handled at once, for all devices; each takes up to 64 MiB of memory",
    )
    concurrent_submits_per_device: int = Field(
        default=4,
        ge=1,
        le=1024,
        title="Concurrent submits of a device",
        description="largest number of requests of one device handled at once; fewer while few are free",
    )
    arrival_s: float = Field(
        default=20.0,
        gt=0,
        le=600,
        title="Arrival",
        description="seconds a request may take to arrive while others wait; without others up to 600",
    )
    connections: int = Field(
        default=4096,
        ge=1,
        title="Connections",
        description="largest number of connections to the device port; an agent has one",
    )
    connections_per_address: int = Field(
        default=1024,
        ge=1,
        title="Connections of an address",
        description="largest number of connections from one address; of IPv6 one network of 64 bits",
    )
    enrolment_connections: int = Field(
        default=256,
        ge=1,
        title="Enrolment connections",
        description="largest number of connections to the enrolment port",
    )
    console_connections: int = Field(
        default=512,
        ge=1,
        title="Console connections",
        description="largest number of connections to the console's port; a page has a few",
    )
    calls_per_second_per_device: float = Field(
        default=100.0,
        gt=0,
        title="Calls of a device",
        description="calls a second that a device may make, on average; more are refused with a pause",
    )
    burst_calls_per_device: int = Field(
        default=200, ge=1, title="Burst of a device", description="calls that a device may make at once"
    )
    samples_per_second_per_device: float = Field(
        default=100.0,
        gt=0,
        title="Samples of a device",
        description="samples a second that a device may send, on average; more must wait",
    )
    burst_samples_per_device: int = Field(
        default=5000, ge=1, title="Burst of samples of a device", description="samples that a device may send at once"
    )
    bytes_per_second_per_device: int = Field(
        default=8 * 2**20,
        ge=1024,
        title="Bytes of a device",
        description="bytes of samples a second that a device may send, on average; more must wait",
    )
    burst_bytes_per_device: int = Field(
        default=64 * 2**20,
        ge=1024,
        title="Burst of bytes of a device",
        description="bytes of samples that a device may send at once",
    )
    rejections_per_minute_per_device: int = Field(
        default=30,
        ge=1,
        title="Rejections of a device",
        description="requests a minute of a device that may be rejected, each counted once for each MiB and by the "
        "share of its samples that is rejected; then the next ones must wait",
    )
    watches_per_device: int = Field(
        default=4,
        ge=1,
        le=64,
        title="Watches of a device",
        description="largest number of open streams",
    )
    fetches_per_device: int = Field(
        default=4,
        ge=1,
        le=64,
        title="Fetches of a device",
        description="largest number of bundles that a device fetches at once",
    )
    enrolments_per_minute: int = Field(
        default=30,
        ge=1,
        title="Failed enrolments",
        description="failed enrolments a minute that one address may try; of IPv6 one network of 64 bits",
    )
