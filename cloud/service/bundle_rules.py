"""Check of samples against the bundle that screened them, before anything is stored.

A device may use the bundles that are or were current, or that a rollout gave to devices: those that heartbeats name.
Bundles that were only published stay in the service. The group of a device does not matter here: its spool may hold
samples from before a change of the group.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cloud.store.registry import Registry
from shared.bundle import InputSpec
from shared.errors import SampleRejected
from shared.modalities import sample_type
from shared.modality import Modality
from shared.wire import modality_of
from vedette.v1 import sample_pb2

MAX_CACHED = 256
MAX_ID_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class BundleRule:
    """Samples that a bundle judges."""

    modality: Modality
    spec: InputSpec


Rules = Mapping[str, BundleRule]


class BundleRules:
    """Rules of the bundles that devices may use, by bundle id; bundles never change, so rules are cached."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: OrderedDict[str, BundleRule] = OrderedDict()

    @property
    def known(self) -> Rules:
        """Rules that were looked up before."""
        return self._known

    async def of(self, bundle_ids: Collection[str]) -> Rules:
        """Return the rules of those bundles that exist and that devices may use; raises StorageError."""
        wanted = {bundle_id for bundle_id in bundle_ids if is_id(bundle_id)}
        if missing := wanted - self._known.keys():
            for manifest in await self._registry.rolled_out(missing):
                self._known[manifest.bundle_id] = BundleRule(manifest.modality, manifest.input)
        found = {bundle_id: self._known[bundle_id] for bundle_id in wanted if bundle_id in self._known}
        while len(self._known) > MAX_CACHED:
            self._known.popitem(last=False)
        return found


def is_id(text: str) -> bool:
    """Return whether a text can be a bundle id; the store is asked for no other (PostgreSQL refuses NUL)."""
    return len(text) <= MAX_ID_CHARACTERS and "\0" not in text


def check_fit(message: sample_pb2.Sample, rules: Rules) -> BundleRule:
    """Return the rule of a sample's bundle; raises SampleRejected if sample and bundle do not match.

    Looks at modality and shape only, so that nothing is decoded that the bundle cannot judge.
    """
    bundle_id = message.screening.bundle_id
    rule = rules.get(bundle_id)
    if rule is None:
        raise SampleRejected(f"bundle {bundle_id[:MAX_ID_CHARACTERS]!r} is not one that this service gave to devices")
    modality = modality_of(message)
    if modality is not rule.modality:
        raise SampleRejected(f"bundle {bundle_id} judges {rule.modality} samples, not {modality or 'unknown'}")
    if not message.payload.HasField("crop"):
        sample_type(modality).check_shape(tuple(message.payload.shape), rule.spec)
    return rule
