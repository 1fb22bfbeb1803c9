"""Settings from defaults, file and environment, and their errors."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, model_validator

from shared.errors import SettingsError
from shared.settings import Settings


class Router(Settings):
    forward_p_value: float = Field(default=0.05, gt=0, lt=1)
    audit_share: float = 0.01
    mode: Literal["cascade", "edge_only"] = "cascade"

    @model_validator(mode="after")
    def _audit_below_forward(self) -> "Router":
        if self.audit_share > self.forward_p_value:
            raise ValueError("audit_share exceeds forward_p_value: lower the first, or raise the second")
        return self


class Replay(Settings):
    kind: Literal["replay"]
    path: Path
    rate_per_s: float = 0


class Camera(Settings):
    kind: Literal["camera"]
    device: int = 0


class Agent(Settings):
    name: str = "agent"
    state_dir: Path = Path("state")
    router: Router = Router()
    sources: tuple[Annotated[Replay | Camera, Field(discriminator="kind")], ...] = ()
    limit: float | None = 1.0
    enabled: bool = True
    password: SecretStr = SecretStr("")


def load(text: str, path: Path, **environment: str) -> Agent:
    file = path / "edge.toml"
    file.write_text(text, encoding="utf-8")
    return Agent.load(file, {f"VEDETTE_{name}": value for name, value in environment.items()})


def refusal(text: str, path: Path, **environment: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(text, path, **environment)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_file_and_environment_in_this_order(tmp_path: Path) -> None:
    text = 'name = "press"\n[router]\nforward_p_value = 0.2\naudit_share = 0.1\n'
    assert Agent.load(None, {}) == Agent()
    assert load(text, tmp_path).router == Router(forward_p_value=0.2, audit_share=0.1)
    changed = load(text, tmp_path, NAME="other", ROUTER__FORWARD_P_VALUE="0.3", PATH="/usr/bin", HOME="/root")
    assert (changed.name, changed.router.forward_p_value, changed.router.audit_share) == ("other", 0.3, 0.1)


def test_sources_are_told_apart_by_their_kind(tmp_path: Path) -> None:
    text = '[[sources]]\nkind = "replay"\npath = "a.csv"\n[[sources]]\nkind = "camera"\ndevice = 2\n'
    assert load(text, tmp_path).sources == (Replay(kind="replay", path=Path("a.csv")), Camera(kind="camera", device=2))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("nme = 'x'", "unknown key 'nme': did you mean 'name'?"),
        ("zzzzzz = 1", "known keys: name, state_dir, router"),
        ("[router]\nforward_p = 0.1", "unknown key 'router.forward_p': did you mean 'forward_p_value'?"),
        ("[[sources]]\nkind = 'replay'\npath = 'a'\nrate_per_second = 1", "did you mean 'rate_per_s'?"),
        ("[[sources]]\nkind = 'camera'\ndevise = 1", "did you mean 'device'?"),
        ("[[sources]]\nkind = 'replay'", "'sources.0.path' is missing: set it."),
        ("[[sources]]\nkind = 'video'\npath = 'a'", "sources.0"),
        ("name = 5", "name: Input should be a valid string (is 5)."),
        ("[router]\nforward_p_value = 'high'", "router.forward_p_value: Input should be a valid number"),
        ("[router]\nforward_p_value = 2", "less than 1 (is 2)"),
        ("[router]\nmode = 'both'", "'cascade' or 'edge_only' (is 'both')"),
        (
            "[router]\naudit_share = 0.5",
            "router: audit_share exceeds forward_p_value: lower the first, or raise the second.",
        ),
        ("router = 3", "router"),
        ("name = 'x", "not valid TOML"),
        ("a = 1\nb = 2\nc = 3\nd = 4\ne = 5\nf = 6\ng = 7", "And 2 more."),
    ],
)
def test_a_wrong_file_is_told_in_one_line_with_its_place_and_key(text: str, told: str, tmp_path: Path) -> None:
    message = refusal(text, tmp_path)
    assert message.startswith(str(tmp_path / "edge.toml"))
    assert told in message


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        Agent.load(tmp_path / "none.toml", {})
    with pytest.raises(SettingsError, match="cannot be read"):
        Agent.load(tmp_path, {})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        Agent.load(tmp_path / "binary.toml", {})


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert load("\ufeffname = 'x'", tmp_path).name == "x"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"ROUTER__FORWARD_PVALUE": "0.2"}, "VEDETTE_ROUTER__FORWARD_PVALUE: unknown key 'router.forward_pvalue'"),
        ({"ROUTER__FORWARD_P_VALUE": "2"}, "VEDETTE_ROUTER__FORWARD_P_VALUE: router.forward_p_value"),
        ({"ROUTER": '{"mode": "x"}'}, "VEDETTE_ROUTER: router.mode"),
        ({"NAME__FIRST": "x"}, "VEDETTE_NAME__FIRST: 'name' is not a table"),
        ({"ENABLED": "perhaps"}, "VEDETTE_ENABLED"),
        ({"SOURCES__": "x"}, "VEDETTE_SOURCES__"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(environment: dict[str, str], told: str, tmp_path: Path) -> None:
    assert told in refusal('name = "press"', tmp_path, **environment)


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(
        lambda text: text[0] not in '[{"' and text != "null"
    )
)
def test_any_plain_text_reaches_a_text_setting_as_it_is(text: str) -> None:
    assert Agent.load(None, {"VEDETTE_NAME": text}).name == text


@pytest.mark.parametrize("text", ["5", "007", "1e3", "true", "[broken", '{"a', "-"])
def test_texts_that_look_like_other_types_stay_text(text: str) -> None:
    assert Agent.load(None, {"VEDETTE_NAME": text}).name == text


def test_variables_may_hold_json_where_a_field_is_more_than_a_text() -> None:
    environment = {
        "VEDETTE_SOURCES": '[{"kind": "replay", "path": "a.csv"}]',
        "VEDETTE_LIMIT": "null",
        "VEDETTE_ENABLED": "false",
        "VEDETTE_NAME": '"[quoted]"',
        "VEDETTE_ROUTER": '{"mode": "edge_only"}',
        "VEDETTE_ROUTER__AUDIT_SHARE": "0.02",
    }
    agent = Agent.load(None, environment)
    assert agent.sources == (Replay(kind="replay", path=Path("a.csv")),)
    assert agent.limit is None
    assert agent.enabled is False
    assert agent.name == "[quoted]"
    assert agent.router == Router(mode="edge_only", audit_share=0.02)


def test_the_text_in_force_is_toml_and_keeps_secrets() -> None:
    agent = Agent.load(None, {"VEDETTE_PASSWORD": "hunter2"})
    shown = tomllib.loads(agent.as_text())
    assert "password" not in shown
    assert shown["router"]["mode"] == "cascade"
    assert "hunter2" not in agent.as_text()
    assert agent.password.get_secret_value() == "hunter2"


def test_settings_do_not_change_after_they_were_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Agent().name = "x"  # type: ignore[misc]
