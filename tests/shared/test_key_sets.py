"""Key sets: only the next set of the own chain, signed by a trusted key, changes the trusted keys."""

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.errors import CertificateError
from shared.key_sets import KeySet, TrustedKey, now_text
from shared.signing_keys import key_id

OLD, NEW, FOREIGN = (Ed25519PrivateKey.generate() for _ in range(3))
OLD_ENTRY, NEW_ENTRY = TrustedKey.of(OLD.public_key()), TrustedKey.of(NEW.public_key(), now_text())
ROOT = KeySet.root([OLD_ENTRY], "a" * 64)


def test_a_chain_of_sets_is_followed_and_survives_the_wire():
    both = ROOT.next([OLD_ENTRY, NEW_ENTRY], OLD)
    last = both.next([NEW_ENTRY], NEW)
    for before, after in ((ROOT, both), (both, last)):
        received = KeySet.from_message(after.to_message())
        assert received == after
        before.check_next(received)
    assert last.key_ids == (key_id(NEW.public_key()),)
    assert (ROOT.serial, both.serial, last.serial) == (1, 2, 3)


def test_both_sides_make_the_same_root_of_one_key():
    assert KeySet.root([TrustedKey.of(OLD.public_key())], "a" * 64).sha256 == ROOT.sha256
    assert KeySet.root([OLD_ENTRY], "b" * 64).sha256 != ROOT.sha256


def test_a_set_that_does_not_continue_the_chain_is_refused():
    both = ROOT.next([OLD_ENTRY, NEW_ENTRY], OLD)
    last = both.next([NEW_ENTRY], NEW)
    fork = ROOT.next([OLD_ENTRY], OLD)
    foreign = KeySet.root([TrustedKey.of(FOREIGN.public_key())], "a" * 64)
    cases = [
        (last, both, "does not follow"),  # a replay
        (last, last, "does not follow"),
        (ROOT, last, "does not follow"),  # a gap
        (fork, last, "does not continue"),
        (ROOT, KeySet.root([OLD_ENTRY], "b" * 64, 2), "another authority"),
        (ROOT, KeySet.root([OLD_ENTRY], "a" * 64, 2), "does not continue"),  # a root is no next set
        (ROOT, dataclasses.replace(both, signature=b""), "not signed"),
        (ROOT, dataclasses.replace(both, signature=OLD.sign(both.data)), "not signed"),  # as a manifest is signed
        (
            ROOT,
            dataclasses.replace(both, signature=foreign.next(foreign.content.keys, FOREIGN).signature),
            "not signed",
        ),
    ]
    for before, after, words in cases:
        with pytest.raises(CertificateError, match=words):
            before.check_next(after)


def test_only_a_trusted_key_makes_the_next_set():
    with pytest.raises(CertificateError, match=key_id(OLD.public_key())):
        ROOT.next([NEW_ENTRY], FOREIGN)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", ROOT.data[:-1], ROOT.data.replace(b'"format":1', b'"format":2'), b" " * 20_000]
)
def test_bytes_that_hold_no_set_are_one_clear_error(data):
    with pytest.raises(CertificateError, match="cannot be read"):
        KeySet.parse(data)
