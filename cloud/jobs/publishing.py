"""Publication of a trained bundle: into the registry, and to a trial in a staged rollout."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field

from cloud.jobs.desk import TrainingDesk
from cloud.jobs.signing import usable_key
from cloud.rollouts.phases import ACTIVE
from cloud.rollouts.stages import DEFAULT_STAGE_S, DEFAULT_STAGE_SAMPLES, TRIAL, Stage, parse_stages
from cloud.store import Store
from cloud.store.registry import Registry
from cloud.store.rollouts import begin, devices_for, newest_rollout
from cloud.store.training_jobs import JobRefusedError, TrainingJob, note_published
from shared.bundle import Bundle, sign
from shared.errors import BundleError

DEFAULT_TRIAL, DEFAULT_WAVES = "trial=5%", "25,100"


class PublicationRequest(BaseModel):
    """Release of a trained bundle. `trial` and `waves` are texts as those of `vedette cloud rollout`.

    The word "trial=" may be left out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trial: str = Field(
        default=DEFAULT_TRIAL, max_length=4000, description='"trial=DEVICE,DEVICE" or "trial=5%"; empty: none.'
    )
    waves: str = Field(default=DEFAULT_WAVES, max_length=400, description="Growing shares in percent, the last 100.")
    stage_s: float = Field(default=DEFAULT_STAGE_S, ge=0, allow_inf_nan=False)
    stage_samples: int = Field(default=DEFAULT_STAGE_SAMPLES, ge=0)
    reason: str = Field(default="", max_length=1024)

    @property
    def stage_text(self) -> str:
        """The trial as `parse_stages` reads it."""
        prefix = f"{TRIAL}="
        return self.trial if not self.trial or self.trial.startswith(prefix) else prefix + self.trial


@dataclass(frozen=True, slots=True)
class Publication:
    """A published bundle: its rollout has begun, or it is the first of its name and current at once."""

    bundle_id: str
    name: str
    is_first: bool


async def publish(desk: TrainingDesk, job: TrainingJob, wanted: PublicationRequest, actor: str) -> Publication:
    """Add the bundle of a job to the registry and begin its rollout; the first of a name becomes current at once.

    There is nothing that a first bundle could be tried against, and no device runs its name yet. A version that was
    taken meanwhile is replaced by the next free one, and the bundle is signed again.

    Raises JobRefusedError, SettingsError for wrong stages, BundleError if the registry or another rollout refuses it,
    CertificateError, StorageError.
    """
    if job.published is not None:
        raise JobRefusedError(f"The bundle is published already, as {job.published['bundle_id']}.")
    stages = parse_stages(wanted.stage_text, wanted.waves, least_s=wanted.stage_s, least_samples=wanted.stage_samples)
    bundle = await _free_version(desk, job)
    published = await release(desk.writing, desk.registry, bundle, stages, actor, wanted.reason)
    facts = {"bundle_id": published.bundle_id, "name": published.name, "is_first": published.is_first}
    await note_published(desk.writing, job.job_id, {**facts, "trial": wanted.trial}, actor)
    return published


async def release(
    store: Store, registry: Registry, bundle: Bundle, stages: Sequence[Stage], actor: str, reason: str = ""
) -> Publication:
    """Add a bundle to the registry and begin its rollout in stages; the first of a name becomes current at once.

    Raises as `check_release` and as `publish`.
    """
    name, bundle_id = bundle.manifest.name, bundle.manifest.bundle_id
    await check_release(store, name, stages)
    current = await registry.current(name)
    is_first = current is None or current.bundle_id == bundle_id
    await registry.publish(bundle, make_current=is_first, actor=actor)
    if not is_first:
        await begin(store, name, bundle_id, stages, author=actor, actor=actor, reason=reason, now_s=time.time())
    return Publication(bundle_id, name, is_first)


async def check_release(store: Store, name: str, stages: Sequence[Stage]) -> None:
    """Raise unless a rollout of the name can begin in these stages.

    Raises JobRefusedError while another one is under way, SettingsError for a device that is not enrolled.
    """
    async with store.reading() as connection:
        newest = await newest_rollout(connection, name)
        await devices_for(connection, stages)
    if newest is not None and newest.phase in ACTIVE:
        raise JobRefusedError(f"A rollout of {name!r} to {newest.bundle_id} is {newest.phase}: wait for its end.")


async def with_free_version(registry: Registry, bundle: Bundle, key: Ed25519PrivateKey) -> Bundle:
    """Return a bundle, with the next free version and a new signature if another bundle has taken its own."""
    manifest = bundle.manifest
    taken = {entry.version: entry.bundle_id for entry in await registry.versions(manifest.name)}
    if taken.get(manifest.version, manifest.bundle_id) == manifest.bundle_id:
        return bundle
    return await asyncio.to_thread(sign, manifest.model_copy(update={"version": max(taken) + 1}), bundle.files, key)


async def _free_version(desk: TrainingDesk, job: TrainingJob) -> Bundle:
    """Return the bundle of a job, with a free version. Raises BundleError, JobRefusedError."""
    path = desk.bundle_path(job)
    if not await asyncio.to_thread(path.exists):
        raise BundleError("The file of the bundle is gone: train again.")
    bundle = await asyncio.to_thread(Bundle.open, path, await desk.registry.key_chain.keys())
    _, key = await usable_key(desk.registry, desk.settings.training.signing_key)
    signed = await with_free_version(desk.registry, bundle, key)
    if signed is not bundle:
        await asyncio.to_thread(signed.save, path)  # so that a second attempt publishes the same bundle
    return signed
