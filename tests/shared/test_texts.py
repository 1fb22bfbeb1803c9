"""Short texts for people."""

from pathlib import Path

import pytest

from edge.settings import AgentSettings
from shared.errors import SettingsError
from shared.texts import moment_text, without_secrets


def test_moments_are_utc_to_the_millisecond_and_others_numbers() -> None:
    assert moment_text(1.8e9) == "2027-01-15T08:00:00.000Z"
    assert moment_text(-0.5) == "1969-12-31T23:59:59.500Z"
    assert moment_text(1e300) == "1e+300"


@pytest.mark.parametrize(
    "address", ["mqtt://plantuser:pa#ss@h", "mqtts://plantuser:pass@h:1883/x", "mqtt://plantuser:12?3@h"]
)
def test_a_refused_address_does_not_show_its_secret(tmp_path: Path, address: str) -> None:
    assert "plantuser" not in without_secrets(f"no answer from {address}")
    path = tmp_path / "edge.toml"
    source = f'id = "a"\nkind = "mqtt"\nurl = "{address}"\ntopic = "t"\nbundle = "b"\nqos = 7'
    path.write_text(f'state_dir = "s"\n[[sources]]\n{source}\n')
    with pytest.raises(SettingsError) as refused:
        AgentSettings.load(path, {})
    for secret in ("plantuser", "pa#ss", "pass", "12?3"):
        assert secret not in str(refused.value)
