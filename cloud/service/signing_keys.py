"""Changes of the keys that may sign bundles, and a report on the present ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloud.store import Store
from cloud.store.key_sets import confirmed_sets
from cloud.store.registry import Registry
from cloud.store.rollouts import active_rollouts
from shared.errors import CertificateError
from shared.key_sets import MAX_KEYS, KeySet, TrustedKey, now_text

NAMED_DEVICES = 5


@dataclass(frozen=True, slots=True)
class KeyState:
    """A trusted key: `devices` have confirmed a set with it, `bundles` are the current ones that it signed."""

    key_id: str
    added_at: str
    devices: int
    bundles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The trusted keys in the order in which they were added; revoked devices do not count in `devices`."""

    serial: int
    devices: int
    keys: tuple[KeyState, ...]


class SigningKeys:
    """Trusted keys of one installation."""

    def __init__(self, store: Store, registry: Registry, authority_sha256: str) -> None:
        self._store, self._registry, self._authority_sha256 = store, registry, authority_sha256

    async def report(self) -> KeyReport:
        """Return the trusted keys, the devices that confirmed them and the current bundles that they signed."""
        chain = await self._chain()
        signers = await self._registry.current_signers()
        confirmed = await self._confirmed(chain)
        states = tuple(
            KeyState(
                entry.key_id,
                entry.added_at,
                sum(entry.key_id in keys for keys in confirmed.values()),
                tuple(bundle_id for bundle_id, signer in signers.items() if signer == entry.key_id),
            )
            for entry in chain[-1].content.keys
        )
        return KeyReport(chain[-1].serial, len(confirmed), states)

    async def add(self, key: Ed25519PublicKey, signing_key: Ed25519PrivateKey) -> KeySet:
        """Trust another key; raises CertificateError if that is not possible."""
        chain = await self._chain()
        entries, new = chain[-1].content.keys, TrustedKey.of(key, now_text())
        if new.key_id in chain[-1].key_ids:
            raise CertificateError(f"Key {new.key_id} is trusted already: see vedette cloud keys list.")
        if len(entries) >= MAX_KEYS:
            raise CertificateError(f"{MAX_KEYS} keys are trusted, the largest number: retire one first.")
        return await self._append(chain, [*entries, new], signing_key)

    async def retire(self, key_id: str, signing_key: Ed25519PrivateKey, *, force: bool = False) -> KeySet:
        """Trust a key no longer.

        Raises CertificateError if it is unknown, is the last one, or signed a bundle that is current or is being rolled
        out; without `force`, also
        while devices have not confirmed the keys that remain.
        """
        chain = await self._chain()
        entries = chain[-1].content.keys
        remaining = [entry for entry in entries if entry.key_id != key_id]
        if len(remaining) == len(entries):
            raise CertificateError(
                f"Key {key_id!r} is not trusted; the trusted ones are {', '.join(chain[-1].key_ids)}."
            )
        if not remaining:
            raise CertificateError(f"Key {key_id} is the only one: add another first (vedette cloud keys add).")
        signers = await self._registry.current_signers()
        if signed := [bundle_id for bundle_id, signer in signers.items() if signer == key_id]:
            raise CertificateError(
                f"Key {key_id} signed {', '.join(signed)}, which is current: sign it with another trusted key (vedette "
                "bundle sign) and publish it again, then retire this one."
            )
        async with self._store.reading() as connection:
            under_way = [rollout.bundle_id for rollout in await active_rollouts(connection)]
        staged = await self._registry.signers(under_way)
        if signed := [bundle_id for bundle_id, signer in staged.items() if signer == key_id]:
            raise CertificateError(
                f"Key {key_id} signed {', '.join(signed)}, whose rollout is under way: wait for its end, or end it "
                "with vedette cloud rollout back NAME."
            )
        if not force:
            wanted = (set(signers.values()) | set(staged.values())) - {""}
            self._check_confirmed(await self._confirmed(chain), wanted, [entry.key_id for entry in remaining])
        return await self._append(chain, remaining, signing_key)

    def _check_confirmed(
        self, confirmed: dict[str, frozenset[str]], wanted: Iterable[str], remaining: Sequence[str]
    ) -> None:
        """Raise CertificateError for devices that do not trust the `wanted` keys, or none of the `remaining` ones."""
        needed = frozenset(wanted)
        late = [
            device_id
            for device_id, keys in confirmed.items()
            if not (needed <= keys if needed else keys.intersection(remaining))
        ]
        if not late:
            return
        names = ", ".join(late[:NAMED_DEVICES]) + (", ..." if len(late) > NAMED_DEVICES else "")
        lacking = " and ".join(sorted(needed)) if needed else " or ".join(remaining)
        raise CertificateError(
            f"{len(late)} of {len(confirmed)} devices have not confirmed key {lacking} ({names}): wait for their "
            "next heartbeat, or enrol or revoke them. --force retires the key nevertheless."
        )

    async def _append(
        self, chain: tuple[KeySet, ...], entries: Sequence[TrustedKey], signing_key: Ed25519PrivateKey
    ) -> KeySet:
        following = chain[-1].next(entries, signing_key)
        await self._registry.key_chain.append(chain, following)
        return following

    async def _chain(self) -> tuple[KeySet, ...]:
        return await self._registry.key_chain.sets(self._authority_sha256)

    async def _confirmed(self, chain: Sequence[KeySet]) -> dict[str, frozenset[str]]:
        """Return the ids of the keys that each device trusts, by device id; empty where its set is unknown."""
        keys_of = {item.sha256: frozenset(item.key_ids) for item in chain}
        return {
            device_id: keys_of.get(sha256, frozenset())
            for device_id, sha256 in (await confirmed_sets(self._store)).items()
        }
