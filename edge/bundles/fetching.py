"""Download of a bundle's archive, which resumes where an earlier one ended."""

import asyncio
from pathlib import Path

from edge.uplink.transport import Transport
from shared.bundle import MAX_ARCHIVE_BYTES
from shared.errors import BundleError, BundleIntegrityError
from shared.logs import EventLog
from vedette.v1 import fleet_pb2

log = EventLog("bundles")


async def fetch_archive(transport: Transport, desired: fleet_pb2.DesiredBundle, part: Path, deadline_s: float) -> None:
    """Append to the partial archive `part` until it has the announced size.

    `deadline_s` applies to each chunk. Raises BundleError for an impossible size, BundleIntegrityError if chunks do not
    follow one another, AioRpcError or OSError.
    """
    if not 0 < desired.archive_bytes <= MAX_ARCHIVE_BYTES:
        raise BundleError(f"{desired.bundle_id}: announced with {desired.archive_bytes} bytes.")
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as file:
        offset = file.tell()
        if offset >= desired.archive_bytes:  # complete, or too long, which the hash will show
            return
        log.info("bundle_fetching", bundle=desired.bundle_id, from_byte=offset, bytes=desired.archive_bytes)
        stream = transport.fetch(desired.bundle_id, offset)
        try:
            while offset < desired.archive_bytes:
                async with asyncio.timeout(deadline_s):
                    chunk = await stream.read()
                if chunk is None:
                    break
                size = len(chunk.data)
                if chunk.offset != offset or not 0 < size <= desired.archive_bytes - offset:
                    raise BundleIntegrityError(
                        f"{desired.bundle_id}: received {size} bytes for byte {chunk.offset}, expected byte {offset}."
                    )
                file.write(chunk.data)
                file.flush()  # so that a process that ends here resumes here
                offset += size
        except TimeoutError:
            raise BundleIntegrityError(f"{desired.bundle_id}: the fetch stalls at byte {offset}.") from None
        finally:
            stream.cancel()
    if offset < desired.archive_bytes:
        raise BundleIntegrityError(f"{desired.bundle_id}: the fetch ended at byte {offset}; it resumes there.")
