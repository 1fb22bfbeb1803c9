"""`vedette cloud serve`: run the service until a signal ends it."""

import asyncio
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cloud.devices import late_after_s
from cloud.jobs.desk import TrainingDesk
from cloud.live_views.desk import LiveViewDesk
from cloud.service.authority import Authority
from cloud.service.data_dir import prepare, service_lock
from cloud.service.http import StreamingApp
from cloud.service.load_analysis import LoadAnalysis
from cloud.service.process import Service
from cloud.service.roles import Role, check_role
from cloud.service.trusted_key import trusted_key_for_service
from cloud.settings import CloudSettings
from cloud.store import Store
from cloud.store.registry import Registry
from cloud.system.figures import System
from cloud.system.machine import Machine
from shared.errors import VedetteError
from shared.garbage import skip_loaded_objects
from shared.logs import EventLog, configure

RESERVED_FILES = 1024  # of store, bundles and libraries
_LOG = EventLog("service")


def serve(settings: CloudSettings, load_analysis: LoadAnalysis | None = None, role: Role = Role.ALL) -> None:
    """Run until SIGTERM or SIGINT; raises the error that prevents the start or ends the service.

    `load_analysis`: makes the analysis of a bundle, in this process; None for the bundle's own, in a child process.
    """
    configure(libraries=True)
    check_role(role, settings)
    key = trusted_key_for_service(settings)
    authority = prepare(settings.store)
    limits = settings.limits
    raise_file_limit(limits.connections + limits.enrolment_connections + limits.console_connections + RESERVED_FILES)
    with service_lock(settings.data_dir, shared=role is not Role.ALL):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(settings, authority, key, load_analysis, role))
        # All data is on disk. Unloading PyTorch takes long, and a running calculation cannot be interrupted: its
        # samples are judged at the next start.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


def raise_file_limit(wanted: int) -> None:
    """Let this process open `wanted` files, or as many as the system allows; warn if these are fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        advice = "raise LimitNOFILE or lower limits.connections"
        _LOG.warning("few_files", allowed=hard, wanted=wanted, advice=advice)
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(
    settings: CloudSettings,
    authority: Authority,
    key: Ed25519PublicKey,
    load_analysis: LoadAnalysis | None,
    role: Role,
) -> None:
    """Serve until a signal."""
    asked = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)

    service = Service(settings, authority, key, load_analysis=load_analysis, make_console=_make_console, role=role)
    try:
        await service.start()
        service.failed.add_done_callback(lambda _: asked.set())
        skip_loaded_objects()
        await asked.wait()
    finally:
        _LOG.info("stopping")
        await service.stop()
        _LOG.info("stopped")
    if service.failed.done():
        error = service.failed.result()
        raise VedetteError(f"The service ended: {type(error).__name__}: {error}. The log above says more.")


def _make_console(
    store: Store,
    writing: Store,
    registry: Registry,
    settings: CloudSettings,
    bundle_problems: Callable[[], Mapping[str, str]],
    training: TrainingDesk,
    live_views: LiveViewDesk,
) -> StreamingApp:
    from cloud.console import create_app  # FastAPI imports slowly: report configuration errors first

    late = late_after_s(settings.heartbeat_s)
    return create_app(
        store,
        registry,
        late_after_s=late,
        bundle_problems=bundle_problems,
        writing=writing,
        explanations=settings.explanations,
        system=System(store, settings, Machine(settings.data_dir)),
        training=training,
        live_views=live_views,
    )
