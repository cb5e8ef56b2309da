"""Secrets and personal data on their way to where they do not belong."""

from __future__ import annotations

import functools
import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from misstep.anomalies import Anomaly
from misstep.detectors.signals import PERSONAL, Pass, pattern, personal, scan, signals, texts
from misstep.events import (
    Event,
    MessageSent,
    ModelRequested,
    ModelResponded,
    ToolRequested,
    ToolReturned,
    text_of,
)
from misstep.provenance import Source
from misstep.redact import SECRETS, pseudonym, redacted, redacted_json
from misstep.run import Run
from misstep.taxonomy import AnomalyType, Severity

_KINDS = frozenset(SECRETS)
_EXAMPLE = re.compile(
    r"example|sample|dummy|placeholder|redacted|changeme|your[_-]|_here\b|x{4,}|\*{3,}|\.{3}|…|(.)\1{5,}|1234567|abcdef",
    re.IGNORECASE,
)
_CREDENTIAL = re.compile(
    r"(?:.*[_-])?(?:authorization|auth|token|secret|password|passwd|passphrase|pwd|credentials?|bearer|cookie|"
    r"(?:api|access|private|secret|ssh)[_-]?key|api-?token|key|dsn|connection_?string|database_?url)",
    re.IGNORECASE,
)
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_OUTBOUND = frozenset(
    {
        "send", "post", "email", "mail", "publish", "upload", "tweet", "share", "reply", "forward", "notify", "message",
        "comment", "submit", "export", "webhook", "broadcast", "sms", "dm", "transmit", "push",
    }
)  # fmt: skip
_RECIPIENTS = frozenset(
    {
        "to", "recipient", "recipients", "address", "email", "url", "channel", "user", "cc", "bcc", "host", "endpoint",
        "destination", "webhook", "phone", "target", "participants",
    }
)  # fmt: skip


@dataclass(slots=True)
class _Heard:
    """How far the run's history was read for what is now passed on, by `seq`."""

    upto: int = -1


@dataclass(frozen=True)
class SecretLeak:
    """
    A credential of a known shape where it does not belong: in a call's arguments, a tool result, an answer, a message.

    An argument that is called so (`token`, `headers.authorization`) is what the credential is for, and no leak;
    neither are examples and placeholders, and what only stands under a secret's name (`password: ...`), which is
    redacted everywhere but too often no secret. Where a user or the system prompt gave the secret away itself, this
    weighs less. What was said before the guard came is judged when a model is first shown it.
    """

    type: ClassVar[AnomalyType] = AnomalyType.SECRET_LEAK

    def __call__(
        self, event: ToolRequested | ToolReturned | ModelRequested | ModelResponded | MessageSent, run: Run
    ) -> Anomaly | None:
        """Judge what is passed on."""
        if isinstance(event, ModelRequested):
            return self._history(event, run)
        found = signals(event, run)
        if not found.names & _KINDS:
            return None
        if isinstance(event, ToolRequested):
            return self._in_call(event, run, found)
        secrets = list(_secrets(found.text, found.names))
        if not secrets:
            return None
        severity = Severity.MEDIUM
        if isinstance(event, ModelResponded):
            severity = Severity.LOW if _given(secrets[0][1], run) else Severity.HIGH
        elif isinstance(event, MessageSent) and event.trust in ("user", "system"):
            severity = Severity.LOW
        where = _WHERE[type(event)]
        return self._found((event.seq,), f"in {where}{found.caution}", secrets, severity, redacted(text_of(event)))

    def _in_call(self, event: ToolRequested, run: Run, found: Pass) -> Anomaly | None:
        for name, value in texts(event.arguments):
            if _CREDENTIAL.fullmatch(name):
                continue
            secrets = list(_secrets(value, found.names))
            if secrets:
                severity = Severity.MEDIUM if _given(secrets[0][1], run) else None
                where = f"in `{name}` of a call of `{event.tool}`"
                facts = {"tool": event.tool, "argument": name}
                return self._found((event.seq,), where, secrets, severity, redacted_json(dict(event.arguments)), facts)
        return None

    def _history(self, event: ModelRequested, run: Run) -> Anomaly | None:
        """What was said before the guard came, when a model is first shown it."""
        found = _first_shown(self, event, run, lambda text: _secrets_in(scan(text)))
        if not found:
            return None
        secrets = [secret for each in found.values() for secret in each]
        return self._found(tuple(reversed(found)), _EARLIER, secrets, Severity.LOW, None)

    def _found(
        self,
        evidence: tuple[int, ...],
        where: str,
        secrets: list[tuple[str, str]],
        severity: Severity | None,
        rewrite: Any,
        facts: Mapping[str, str] | None = None,
    ) -> Anomaly:
        kinds = ", ".join(sorted({kind for kind, _ in secrets}))
        return Anomaly(
            type=self.type,
            message=f"a secret ({kinds}) {where}",
            evidence=evidence,
            severity=severity,
            confidence=0.9,
            facts=facts or {},
            rewrite=rewrite,
        )


_EARLIER = "in the earlier conversation, which a model is shown"

_WHERE: Mapping[type[Event], str] = {
    ToolReturned: "a tool's result",
    ModelResponded: "what a model says",
    MessageSent: "a message",
}


def _first_shown(
    detector: Hashable, event: ModelRequested, run: Run, values: Callable[[str], list[tuple[str, str]]]
) -> dict[int, list[tuple[str, str]]]:
    """What `values` finds in the history a model is shown for the first time, by `seq`."""
    heard = run.memory(detector, _Heard)
    first, heard.upto = heard.upto + 1, event.seq
    found: dict[int, list[tuple[str, str]]] = {}
    for seq in range(max(first, event.seq - run.limits.events), event.seq):
        earlier = run.find(seq)
        if earlier is not None and earlier.history:
            said = values(text_of(earlier))
            if said:
                found[seq] = said
    return found


def _secrets_in(found: Pass) -> list[tuple[str, str]]:
    return list(_secrets(found.text, found.names))


def _secrets(text: str, names: frozenset[str]) -> Iterator[tuple[str, str]]:
    """The secrets in a text that are no examples, each with its kind."""
    for kind in sorted(names & _KINDS):
        for match in pattern(kind).finditer(text):
            secret = match.group()
            if _EXAMPLE.search(secret) is None and _random(secret):
                yield kind, secret


def _random(secret: str) -> bool:
    """Whether a secret may be a real one: its characters are not the same few over and over."""
    counts = Counter(secret[-64:])
    size = sum(counts.values())
    return -sum(n / size * math.log2(n / size) for n in counts.values()) >= 2.5


def _given(value: str, run: Run) -> bool:
    """Whether the user or the system said it."""
    best = run.provenance.trace(value).best
    return best is not None and best >= Source.SYSTEM


# -- personal data ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PiiLeak:
    """
    Personal data of these `kinds` (card, iban, ssn, email, phone, ip) in these `places`.

    `outbound`: a call of a tool that sends or publishes by its name, where the value comes from a tool or another
    agent, and neither the user nor the system prompt ever said it, or named the recipient. Personal data the task is
    about moves among an agent's own tools, to the user, and to whom the user names; that is no leak. The other places
    (`arguments`, `results`, `answers`, `messages`, `history`) are for those who want every such value found, whosever
    it is; `history` is what was said before the guard came, judged when a model is first shown it.
    Numbers must check out (Luhn for cards, mod-97 for IBANs, an area that was issued for SSNs); published test
    numbers and addresses reserved for examples do not count.
    """

    kinds: tuple[str, ...] = ("card", "iban", "ssn")
    places: tuple[str, ...] = ("outbound",)
    type: ClassVar[AnomalyType] = AnomalyType.PII_LEAK

    def __post_init__(self) -> None:
        for name, known in (("kinds", tuple(PERSONAL)), ("places", _PLACES)):
            unknown = [one for one in getattr(self, name) if one not in known]
            if unknown:
                raise ValueError(f"`{name}` may hold {', '.join(known)}; found {unknown[0]!r}")

    def __call__(
        self, event: ToolRequested | ToolReturned | ModelRequested | ModelResponded | MessageSent, run: Run
    ) -> Anomaly | None:
        """Judge what is passed on."""
        match event:
            case ToolRequested():
                return self._in_call(event, run)
            case ModelRequested():
                return self._history(event, run) if "history" in self.places else None
            case ToolReturned():
                place = "results"
            case ModelResponded():
                place = "answers"
            case MessageSent():
                place = "messages"
        if place not in self.places:
            return None
        found = personal(text_of(event))
        values = list(self._values(found.text, found.names))
        if not values:
            return None
        where = f"in {_WHERE[type(event)]}{found.caution}"
        return self._found((event.seq,), where, values, self._masked(text_of(event)), {})

    def _history(self, event: ModelRequested, run: Run) -> Anomaly | None:
        found = _first_shown(self, event, run, self._personal)
        if not found:
            return None
        values = [value for each in found.values() for value in each]
        return self._found(tuple(reversed(found)), _EARLIER, values, None, {})

    def _personal(self, text: str) -> list[tuple[str, str]]:
        found = personal(text)
        return list(self._values(found.text, found.names))

    def _in_call(self, event: ToolRequested, run: Run) -> Anomaly | None:
        outbound = "outbound" in self.places and _sends(event.tool)
        if not outbound and "arguments" not in self.places:
            return None
        everywhere = "arguments" in self.places
        for name, text in texts(event.arguments):
            values = [
                (kind, value)
                for kind, value in self._values(text, personal(text).names)
                if everywhere or not (_is_recipient(name) or _given(value, run))
            ]
            if values and (everywhere or not _to_the_named(event.arguments, run)):
                where = f"in `{name}` of a call of `{event.tool}`"
                facts = {"tool": event.tool, "argument": name}
                return self._found((event.seq,), where, values, _mapped(event.arguments, self._masked), facts)
        return None

    def _found(
        self,
        evidence: tuple[int, ...],
        where: str,
        values: list[tuple[str, str]],
        rewrite: Any,
        facts: Mapping[str, str],
    ) -> Anomaly:
        kinds = ", ".join(sorted({kind for kind, _ in values}))
        return Anomaly(
            type=self.type,
            message=f"personal data ({kinds}) {where}",
            evidence=evidence,
            confidence=0.7,
            facts=facts,
            rewrite=rewrite,
        )

    def _values(self, text: str, names: frozenset[str]) -> Iterator[tuple[str, str]]:
        for kind in self.kinds:
            if kind in names:
                for match in pattern(kind).finditer(text):
                    if _CHECKS[kind](match.group()):
                        yield kind, match.group()

    def _masked(self, text: str) -> str:
        """The text with a pseudonym in place of each value."""
        for kind in self.kinds:
            text = pattern(kind).sub(functools.partial(_pseudonym, kind), text.encode("utf-8", "replace").decode())
        return text


_PLACES = ("outbound", "arguments", "results", "answers", "messages", "history")


def _pseudonym(kind: str, match: Any) -> str:
    value = str(match.group())
    return pseudonym(kind, value, "personal") if _CHECKS[kind](value) else value


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    match value:
        case str():
            return change(value)
        case Mapping():
            return {key: _mapped(inner, change) for key, inner in value.items()}
        case list() | tuple():
            return [_mapped(inner, change) for inner in value]
        case _:
            return value


@functools.lru_cache(maxsize=4096)
def _sends(tool: str) -> bool:
    return any(word.lower() in _OUTBOUND for word in _WORDS.findall(tool))


@functools.lru_cache(maxsize=4096)
def _is_recipient(name: str) -> bool:
    return any(word.lower() in _RECIPIENTS for word in _WORDS.findall(name))


def _to_the_named(arguments: Mapping[str, Any], run: Run) -> bool:
    """Whether every recipient of a call was named by the user or the system; a call that names none is not."""
    recipients = [value for name, value in texts(arguments) if value and _is_recipient(name)]
    return bool(recipients) and all(_given(value, run) for value in recipients)


# -- what has the shape, and is it ------------------------------------------------------------------------------------

_TEST_CARDS = frozenset(
    {
        "4111111111111111", "4242424242424242", "4000056655665556", "4012888888881881", "5555555555554444",
        "5105105105105100", "378282246310005", "371449635398431", "6011111111111117", "6011000990139424",
        "30569309025904", "3056930009020004", "38520000023237", "3530111333300000", "3566002020360505",
        "5200828282828210", "4000000000000002", "4222222222222", "5454545454545454", "4444333322221111",
    }
)  # fmt: skip
"""Numbers card networks and payment providers publish for tests."""

_IBAN_LENGTHS = {
    "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24, "FI": 18,
    "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IS": 26, "IT": 27, "LI": 21, "LT": 20, "LU": 20,
    "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "SE": 24, "SI": 19, "SK": 24,
    "SM": 27, "TR": 26, "UA": 29, "SA": 24, "AE": 23, "IL": 23, "QA": 29, "KW": 30, "BR": 29,
}  # fmt: skip
"""ISO 13616 lengths of the countries whose IBANs are common."""

_TEST_IBANS = frozenset({"GB29NWBK60161331926819", "DE89370400440532013000", "FR1420041010050500013M02606"})


def _is_card(value: str) -> bool:
    """Luhn (ISO/IEC 7812), and no published test number."""
    digits = [int(letter) for letter in value if letter.isdigit()]
    plain = "".join(map(str, digits))
    if not 13 <= len(digits) <= 19 or plain in _TEST_CARDS or len(set(digits)) < 4:
        return False
    doubled = [digit if place % 2 == 0 else digit * 2 - 9 * (digit > 4) for place, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_iban(value: str) -> bool:
    """The country's length and mod-97 (ISO 13616), and no published example."""
    plain = value.replace(" ", "")
    if len(plain) != _IBAN_LENGTHS.get(plain[:2]) or plain in _TEST_IBANS:
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _is_ssn(value: str) -> bool:
    """An area, group and serial the US administration may have issued, and none of its public examples."""
    area, group, serial = value.split("-")
    if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
        return False
    return value not in ("078-05-1120", "219-09-9999", "123-45-6789")


def _is_email(value: str) -> bool:
    """An address outside the domains reserved for examples (RFC 2606)."""
    domain = value.rpartition("@")[2].lower()
    return re.search(r"(?:^|\.)example(?:\.(?:com|net|org))?$|\.(?:test|invalid|localhost)$", domain) is None


def _is_phone(value: str) -> bool:
    """As many digits as a number has (E.164), not a date, and outside the range reserved for fiction."""
    digits = [letter for letter in value if letter.isdigit()]
    dated = re.fullmatch(r"(?:19|20)\d\d[ .-]\d\d[ .-]\d\d.*", value)
    return 8 <= len(digits) <= 15 and dated is None and "555-01" not in value


def _is_ip(value: str) -> bool:
    """A public address (IANA's registries, as Python knows them), and no version number."""
    try:
        return ipaddress.ip_address(value).is_global and any(int(part) > 20 for part in value.split("."))
    except ValueError:
        return False


_CHECKS: Mapping[str, Callable[[str], bool]] = {
    "card": _is_card,
    "iban": _is_iban,
    "ssn": _is_ssn,
    "email": _is_email,
    "phone": _is_phone,
    "ip": _is_ip,
}
