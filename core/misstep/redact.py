"""Redaction: secrets leave no renderer, log or store in the clear."""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
from typing import Any

import re2

_KEY = secrets.token_bytes(16)

_KEY_BEGINS, _KEY_ENDS = (rf"-----{edge} [A-Z ]*PRIVATE KEY(?: BLOCK)?-----" for edge in ("BEGIN", "END"))

SECRETS = {
    "aws_key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "github_token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})",
    "slack_token": r"\b(?:xox[abeoprs]|xapp)[.-][A-Za-z0-9.-]{10,}",
    "slack_webhook": r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{40,}",
    "model_key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "google_key": r"\bAIza[0-9A-Za-z_-]{35}",
    "stripe_key": r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{16,}",
    "gitlab_token": r"\bgl(?:pat|dt|rt|ptt|ft|cbt)-[0-9A-Za-z_-]{20,}",
    "npm_token": r"\bnpm_[A-Za-z0-9]{36}",
    "jwt": r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
    "huggingface_token": r"\b(?:hf_|api_org_)[A-Za-z]{34}\b",
    "telegram_token": r"\b[0-9]{8,16}:A[A-Za-z0-9_-]{34}\b",
    "grafana_token": r"\b(?:glsa_[A-Za-z0-9]{32}_[A-Fa-f0-9]{8}|glc_[A-Za-z0-9+/]{32,})",
    "vault_token": r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}",
    "sentry_token": r"\bsntry(?:s_eyJ[A-Za-z0-9+/=_-]{20,}|u_[a-f0-9]{64})",
    "sendgrid_key": r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "shopify_token": r"\bshp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}",
    "square_token": r"\b(?:EAAA|sq0[a-z]{3}-)[A-Za-z0-9_-]{22,60}\b",
    "facebook_token": r"\bEAA[MC][A-Za-z0-9]{60,}",
    "databricks_token": r"\bdapi[a-f0-9]{32}\b",
    "digitalocean_token": r"\bdo[opr]_v1_[a-f0-9]{64}",
    "pypi_token": r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}",
    "notion_token": r"\b(?:ntn_[0-9]{11}[A-Za-z0-9]{35}|secret_[A-Za-z0-9]{43})\b",
    "terraform_token": r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}",
    "sourcegraph_token": r"\bsgp_(?:(?:[a-fA-F0-9]{16}|local)_)?[a-fA-F0-9]{40}\b",
    "onepassword_token": r"\b(?:ops_eyJ[A-Za-z0-9+/]{60,}|A3-[A-Z0-9]{6}-[A-Z0-9-]{24,32})",
    "azure_secret": r"\b[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}",
    "openshift_token": r"\bsha256~[A-Za-z0-9_-]{43}",
    "mailchimp_key": r"\b[0-9a-f]{32}-us[0-9]{1,2}\b",
    "url_password": r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@'\"<>{}$]{1,80}:[^\s:/@'\"<>{}$]{3,80}@[A-Za-z0-9.-]+",
    "private_key": rf"(?s){_KEY_BEGINS}.*?{_KEY_ENDS}|{_KEY_BEGINS}[A-Za-z0-9+/=\s\\:,-]*",
    "bearer": r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{20,}=*",
}

_NAME = (
    r"(?i)[\w.-]*(?:(?:api|access|secret)[_-]?key|secret|passw(?:or)?d|passphrase|(?:auth|access|refresh)[_-]?token)"
)
"""How a secret is called; no kind above is called so, and a pseudonym is not taken for a secret again."""

ASSIGNED = rf"((?:^|[^<\w.-]){_NAME}[\\'\"]*\s*[:=]\s*[\\'\"]*)([^\s\\'\",;&]{{8,}})"


@functools.cache
def _patterns() -> tuple[Any, list[tuple[str, Any]], Any]:
    """One set that says in a single pass which kinds are there, each kind's own pattern, and that of their names."""
    options = re2.Options()
    options.log_errors = False
    every = re2.Set.SearchSet(options)
    kinds = [*SECRETS.items(), ("assigned", ASSIGNED)]
    for _, pattern in kinds:
        every.Add(pattern)
    every.Compile()
    return every, [(kind, re2.compile(pattern, options)) for kind, pattern in kinds], re2.compile(_NAME, options)


def redacted(text: str) -> str:
    """The text with every known kind of secret replaced by `<secret:kind:1a2b3c>`, the same for the same secret."""
    every, patterns, _ = _patterns()
    clean = text.encode("utf-8", "replace").decode("utf-8")
    for index in sorted(every.Match(clean) or ()):  # the assigned ones last: theirs may be of a kind that is known
        kind, pattern = patterns[index]
        clean = pattern.sub(functools.partial(_replaced, kind), clean)
    return clean


def redacted_json(value: Any, name: str = "") -> Any:
    """A JSON value with every string in it redacted, keys included; and whatever stands under a secret's `name`."""
    match value:
        case str():
            plain = redacted(value)
            named = plain and "<secret:" not in plain and _patterns()[2].fullmatch(name) is not None
            return pseudonym("assigned", plain) if named else plain
        case dict():
            return {redacted(str(key)): redacted_json(inner, str(key)) for key, inner in value.items()}
        case list() | tuple():
            return [redacted_json(inner, name) for inner in value]
        case _:
            return value


_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Redacted, and without what could steer a terminal: control characters and bidirectional marks become `�`."""
    return _CONTROL.sub("\ufffd", redacted(text))


def _replaced(kind: str, match: Any) -> str:
    if kind != "assigned":
        return pseudonym(kind, match.group())
    before, value = match.group(1), match.group(2)
    secret = value.rstrip(".:)]}>")
    if not secret or secret.startswith("<secret:"):
        return str(match.group())
    return f"{before}{pseudonym(kind, secret)}{value[len(secret) :]}"


def pseudonym(kind: str, secret: str, of: str = "secret") -> str:
    """What stands in place of a value: the same for the same value in this process, and for no other."""
    return f"<{of}:{kind}:{hashlib.blake2b(secret.encode(), key=_KEY, digest_size=3).hexdigest()}>"
