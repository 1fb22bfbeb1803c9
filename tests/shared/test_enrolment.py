"""Texts of enrolment tokens."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.enrolment import EnrolmentToken
from shared.errors import EnrolmentError

TOKEN = EnrolmentToken("press-4", "s3cret-s3cret", "plant.example:7443", "plant.example:7444", "-----BEGIN…\n")
words = st.text(min_size=1, max_size=30)


@given(st.builds(EnrolmentToken, words, words, words, words, words))
def test_a_token_survives_its_text(token: EnrolmentToken) -> None:
    text = token.to_text()
    assert EnrolmentToken.from_text(text) == token
    assert text.split() == [text]
    assert text.isascii()


def test_spaces_and_broken_lines_around_a_pasted_token_do_not_matter() -> None:
    text = TOKEN.to_text()
    pasted = f"  {text[:40]}\r\n   {text[40:90]}\n{text[90:]}\n\n"
    assert EnrolmentToken.from_text(pasted) == TOKEN


def test_every_cut_token_is_refused() -> None:
    text = TOKEN.to_text()
    for size in range(len(text)):
        with pytest.raises(EnrolmentError):
            EnrolmentToken.from_text(text[:size])


def packed(value: object) -> str:
    return "vedette1." + base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


FIELDS = dict.fromkeys(("device_id", "secret", "address", "enrolment_address", "ca_certificate_pem"), "x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vedette2.abc",
        "vedette1.",
        "vedette1.äöü",
        "vedette1." + "A" * 9000,
        packed([]),
        packed("text"),
        packed({}),
        packed(FIELDS | {"more": "x"}),
        packed({key: value for key, value in FIELDS.items() if key != "secret"}),
        packed(FIELDS | {"secret": ""}),
        packed(FIELDS | {"secret": 5}),
        packed(FIELDS | {"secret": None}),
        "vedette1." + base64.urlsafe_b64encode(b"[" * 6000).decode(),
        "vedette1." + base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_other_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(EnrolmentError) as caught:
        EnrolmentToken.from_text(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=100))
def test_any_other_text_is_refused(text: str) -> None:
    for whole in (text, "vedette1." + text):
        with pytest.raises(EnrolmentError):
            EnrolmentToken.from_text(whole)


def test_the_secret_does_not_show_in_logs() -> None:
    assert "s3cret" not in repr(TOKEN)
