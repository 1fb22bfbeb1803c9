"""Settings of the service, and the addresses that devices get."""

import pytest

from cloud.service.data_dir import Addresses, device_addresses, write_addresses
from cloud.settings import CloudSettings
from shared.addresses import Address
from shared.errors import SettingsError


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("127.0.0.1:7443", ("127.0.0.1", 7443)),
        ("[::1]:0", ("::1", 0)),
        ("cloud.example:443", ("cloud.example", 443)),
    ],
)
def test_addresses_are_split_and_joined(address, parts):
    assert Address.parse(address) == Address(*parts)
    assert str(Address(*parts)) == address


@pytest.mark.parametrize(
    "address", ["7443", "host", "host:", ":1", "::1:80", "host:70000", "host:-1", "a b:1", "x_y:1"]
)
def test_a_bad_address_is_refused_by_its_key(tmp_path, address):
    path = tmp_path / "cloud.toml"
    path.write_text(f'listen = "{address}"\n')
    with pytest.raises(SettingsError, match="listen"):
        CloudSettings.load(path, {})


def test_the_environment_goes_before_the_file(tmp_path):
    path = tmp_path / "cloud.toml"
    path.write_text("[analysis]\nbatch_size = 8\n")
    settings = CloudSettings.load(path, {"VEDETTE_ANALYSIS__BATCH_SIZE": "16"})
    assert settings.analysis.batch_size == 16


def test_devices_get_the_advertised_address_or_the_listened_one(tmp_path):
    assert device_addresses(CloudSettings()) == ("127.0.0.1:7443", "127.0.0.1:7444")
    advertised = CloudSettings(
        listen="0.0.0.0:1", enrolment_listen="0.0.0.0:2", advertised_address="a:3", advertised_enrolment_address="a:4"
    )
    assert device_addresses(advertised) == ("a:3", "a:4")
    with pytest.raises(SettingsError, match="advertised_address"):
        device_addresses(CloudSettings(listen="0.0.0.0:7443"))
    free = CloudSettings(data_dir=tmp_path, listen="127.0.0.1:0", enrolment_listen="127.0.0.1:0")
    with pytest.raises(SettingsError, match="start it first"):
        device_addresses(free)
    write_addresses(tmp_path, Addresses("127.0.0.1:5", "127.0.0.1:6", "127.0.0.1:7", "http://127.0.0.1:7/", 1))
    assert device_addresses(free) == ("127.0.0.1:5", "127.0.0.1:6")
