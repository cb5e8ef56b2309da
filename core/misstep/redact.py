"""Redaction: secrets leave no renderer, log or store in the clear."""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
from typing import Any

import re2

_KEY = secrets.token_bytes(16)

_SECRETS = {
    "aws_key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "github_token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})",
    "slack_token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "model_api_key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "google_key": r"\bAIza[0-9A-Za-z_-]{35}",
    "stripe_key": r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{16,}",
    "gitlab_token": r"\bglpat-[0-9A-Za-z_-]{20,}",
    "npm_token": r"\bnpm_[A-Za-z0-9]{36}",
    "jwt": r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
    "private_key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s]*(?:-----END [A-Z ]*PRIVATE KEY-----)?",
    "bearer": r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{20,}=*",
    "assigned_secret": r"(?i)\b[\w.-]*(?:api[_-]?key|secret|passw(?:or)?d|auth[_-]?token|access[_-]?token)\b['\"]?"
    r"\s*[:=]\s*['\"]?[^\s'\",;&]{8,}",
}


@functools.cache
def _patterns() -> tuple[Any, list[tuple[str, Any]]]:
    """One set that says in a single pass which kinds are there, and each kind's own pattern (RE2: linear time)."""
    options = re2.Options()
    options.log_errors = False
    every = re2.Set.SearchSet(options)
    for pattern in _SECRETS.values():
        every.Add(pattern)
    every.Compile()
    return every, [(kind, re2.compile(pattern, options)) for kind, pattern in _SECRETS.items()]


def redacted(text: str) -> str:
    """The text with every known kind of secret replaced by `<secret:kind:1a2b3c>`, the same for the same secret."""
    every, patterns = _patterns()
    clean = text.encode("utf-8", "replace").decode("utf-8")
    for index in every.Match(clean) or ():
        kind, pattern = patterns[index]
        clean = pattern.sub(functools.partial(_pseudonym, kind), clean)
    return clean


def redacted_json(value: Any) -> Any:
    """A JSON value with every string in it redacted, keys included."""
    match value:
        case str():
            return redacted(value)
        case dict():
            return {redacted(str(key)): redacted_json(inner) for key, inner in value.items()}
        case list() | tuple():
            return [redacted_json(inner) for inner in value]
        case _:
            return value


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Redacted, and without what could steer a terminal: control characters and bidirectional marks become `�`."""
    return _CONTROL.sub("\ufffd", redacted(text))


def _pseudonym(kind: str, match: Any) -> str:
    digest = hashlib.blake2b(match.group().encode(), key=_KEY, digest_size=3).hexdigest()
    return f"<secret:{kind}:{digest}>"
