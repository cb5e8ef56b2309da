"""Redaction: no known secret leaves in the clear, nothing steers a terminal, and provenance still works."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from misstep.redact import printable, redacted, redacted_json
from tests.core.scenes import examples

BODY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"

SECRETS: dict[str, tuple[str, str]] = {
    "aws_key": ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    "github_token": ("ghp_" + "a1B2" * 9, "a1B2a1B2"),
    "github_token fine": ("github_pat_" + "11ABCDEFG0_abcdefghijkl", "11ABCDEFG0"),
    "slack_token": ("xoxb-123456789012-abcdefABCDEF", "123456789012"),
    "model_key": ("sk-proj-abcdefghijklmnopqrstuvwx", "abcdefghijklmnop"),
    "google_key": ("AIza" + "SyA1234567890abcdefghijklmnopqrstuv", "SyA1234567890"),
    "stripe_key": ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWD"),
    "gitlab_token": ("glpat-abcdefghijklmnopqrst", "abcdefghijklm"),
    "npm_token": ("npm_" + "a1B2" * 9, "a1B2a1B2"),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4", "SflKxwRJSMeKKF2QT4"),
    "private_key": (f"-----BEGIN RSA PRIVATE KEY-----\n{BODY}\n{BODY}\n-----END RSA PRIVATE KEY-----", BODY),
    "private_key pkcs8": (f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----", BODY),
    "private_key in JSON": (
        json.dumps({"key": f"-----BEGIN PRIVATE KEY-----\n{BODY}\n-----END PRIVATE KEY-----\n"}),
        BODY,
    ),
    "private_key encrypted": (
        f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AB12\n\n{BODY}\n"
        "-----END RSA PRIVATE KEY-----",
        BODY,
    ),
    "private_key of PGP": (
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{BODY}\n-----END PGP PRIVATE KEY BLOCK-----",
        BODY,
    ),
    "private_key cut short": (f"-----BEGIN PRIVATE KEY-----\n{BODY}\n{BODY}", BODY),
    "bearer": ("Authorization: Bearer abcdef0123456789abcdef01", "abcdef0123456789"),
    "assigned": ("password=hunter2hunter2", "hunter2"),
    "assigned with colon": ("API-Key: abcd1234efgh", "abcd1234"),
    "assigned in JSON": ('{"password": "hunter2hunter2"}', "hunter2"),
    "assigned in JSON in JSON": (json.dumps('{"api_key": "abcd1234efgh"}'), "abcd1234"),
    "assigned in code": ("client_secret = 'abcd1234efgh'", "abcd1234"),
    "assigned in the environment": ("export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG", "wJalrXUtnFEMI"),
    "assigned in camel case": ("apiKey: abcd1234efgh, accessToken: abcd1234efgh", "abcd1234"),
}

KNOWN = pytest.mark.parametrize(("text", "secret"), SECRETS.values(), ids=SECRETS)


@KNOWN
@pytest.mark.parametrize("around", ["{}", "the key is {} ok?", "x\n{}\ny", "[{}](url)", '{{"v": "{}"}}'], ids=range(5))
def test_known_secrets(text: str, secret: str, around: str) -> None:
    """A secret of a known shape, or under a name secrets have, is replaced by a pseudonym of its kind."""
    clean = redacted(around.format(text))
    assert secret in text
    assert secret not in clean
    assert re.search(r"<secret:\w+:[0-9a-f]{6}>", clean)


@KNOWN
def test_secrets_are_found_in_long_texts(text: str, secret: str) -> None:
    """However much stands round a secret, it is found."""
    filler = "ghp_sk-eyJAKIA bearer password secret " * 3000
    assert secret not in redacted(f"{filler} {text} {filler}")


@KNOWN
def test_redacting_twice_changes_nothing(text: str, secret: str) -> None:
    """A pseudonym is not taken for a secret."""
    once = redacted(f"first {text} then {text}")
    assert redacted(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "The password is on the yellow note.",
        "Please keep this secret: ok",
        "sk-learn and xox and AKIA and eyJ",
        "Order #W1234 for ann@shop.example, 12.50 EUR, 2024-05-01",
        "api_key=",
        "the bearer of this letter",
        "<secret:model_key:0a1b2c>",
        "max_tokens: 12345678",
        "-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Words about secrets, identifiers and pseudonyms are left alone."""
    assert redacted(text) == text


def pseudonyms(text: str) -> list[str]:
    """The pseudonyms in a text, in order."""
    return re.findall(r"<secret:\w+:[0-9a-f]{6}>", text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("it is sk-abcdefghijklmnopqrstuvwx.", "api_key=sk-abcdefghijklmnopqrstuvwx"),
        ("password=hunter2hunter2", "PASSWORD: 'hunter2hunter2'"),
        ("password=hunter2hunter2.", '{"password": "hunter2hunter2"}'),
    ],
)
def test_the_same_secret_has_the_same_pseudonym(one: str, other: str) -> None:
    """Wherever a secret stands it has one pseudonym, so that where it comes from can still be told."""
    (first,), (second,) = pseudonyms(redacted(one)), pseudonyms(redacted(other))
    assert first == second


def test_different_secrets_have_different_pseudonyms() -> None:
    """Two secrets are told apart."""
    first, second = pseudonyms(redacted("sk-abcdefghijklmnopqrstuvwx sk-abcdefghijklmnopqrstuvwy"))
    assert first != second


def test_what_names_a_secret_is_kept() -> None:
    """A redacted text still says what the secret was for."""
    assert redacted("password=hunter2hunter2; user=ann").startswith("password=<secret:assigned:")
    assert redacted("password=hunter2hunter2; user=ann").endswith(">; user=ann")


@pytest.mark.parametrize(
    "value",
    [
        {"password": "hunter2hunter2"},
        {"password": "hunter2"},
        {"credentials": {"api_key": "hunter2hunter2"}},
        {"accessToken": ["hunter2hunter2"]},
        {"note": ["password=hunter2hunter2"]},
        {"password=hunter2hunter2": 1},
        ("password: hunter2hunter2",),
        {"passphrase": "hunter2\ud800hunter2"},
    ],
    ids=str,
)
def test_values_are_redacted_by_their_names(value: Any) -> None:
    """In structured data a value is a secret by the name it stands under, however short, and keys are looked at too."""
    assert "hunter2" not in json.dumps(redacted_json(value))


def test_other_values_stay() -> None:
    """What is no secret comes out of structured data as it was."""
    value = {
        "a": [1, 2.5, True, None, "text"],
        "password": "",
        "secret": None,
        "properties": {"password": {"type": "string"}},
    }
    assert redacted_json(value) == value


@given(st.text())
@examples(300)
def test_any_text_can_be_redacted(text: str) -> None:
    """Redaction raises for no text, and what it gives can be written anywhere."""
    redacted(text).encode()
    printable(text).encode()
    json.dumps(redacted_json({text: [text]})).encode()


@given(st.text(), st.text(), st.sampled_from(sorted(SECRETS)))
@examples(300)
def test_secrets_are_found_among_anything(before: str, after: str, kind: str) -> None:
    """A secret set off by spaces is found whatever stands before and after it."""
    text, secret = SECRETS[kind]
    assert secret not in redacted(f"{before} {text} {after}")


@pytest.mark.parametrize(
    "mark",
    [
        "\x00", "\x07", "\x08", "\x1b", "\x7f", "\x85", "\x9b", "\r", "\x0b", "\u200b", "\u200f", "\u061c", "\u2028",
        "\u202a", "\u202e", "\u2066", "\u2069", "\ufeff", "\u2060", "\xad", "\U000e0041",
    ],
    ids=ascii,
)  # fmt: skip
def test_nothing_steers_a_terminal(mark: str) -> None:
    """Control characters, marks of direction and characters nobody sees become one that everybody sees."""
    assert printable(f"a{mark}b") == "a\ufffdb"


def test_what_can_be_read_stays() -> None:
    """Line ends, tabs and the writing of any language are printed as they are."""
    text = "a\tb\nc – “ж” 漢字 ✓ é"
    assert printable(text) == text


def test_a_lone_surrogate_can_be_printed() -> None:
    """Half a character becomes something that can be written."""
    printable("a\ud800b").encode()


def test_what_is_printed_is_redacted() -> None:
    """Printable means redacted too, also where a control character was put into the secret's place."""
    assert "hunter2" not in printable("password=hunter2hunter2\x1b[0m")
