"""Home folder of the user, and its signing key."""

import stat
from pathlib import Path

import pytest

from shared.errors import CertificateError
from shared.home import home_folder, signing_key, trusted_key


def test_the_key_is_made_once_reported_and_private(own_home: Path) -> None:
    notices: list[str] = []
    first = signing_key(notice=notices.append)
    second = signing_key(notice=notices.append)
    assert first.public_key() == second.public_key() == trusted_key()
    assert len(notices) == 1
    assert stat.S_IMODE((own_home / "signing.pem").stat().st_mode) == 0o600


def test_a_named_key_must_exist(tmp_path: Path) -> None:
    with pytest.raises(CertificateError):
        signing_key(tmp_path / "absent.pem")
    with pytest.raises(CertificateError, match="train first"):
        trusted_key()


def test_the_environment_names_the_folder(tmp_path: Path) -> None:
    assert home_folder({"VEDETTE_HOME": str(tmp_path)}) == tmp_path
    assert home_folder({}) == Path.home() / ".vedette"
