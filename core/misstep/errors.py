"""
Errors, one tree; each also is the builtin a caller would expect.

MisstepError
├── PolicyError(ValueError)          a policy that is wrong: file, line, what to do
├── AttachError(ValueError)          a policy that asks a seat for what it cannot enact
├── TraceError(ValueError)           a saved trace that cannot be read: code, where, what to do
├── MissingExtraError(ImportError)   an adapter whose framework is not installed
├── UnsupportedVersionError(ImportError)   a framework older than what was tried
├── VerificationError(RuntimeError)  an app that cannot be verified now
├── ChangedFrameworkError(ImportError)     a framework that lacks what an adapter relies on
├── JournalError(OSError)            a journal that cannot be read or written
├── ToolTimeout(TimeoutError)        a tool that did not answer within the policy's deadline; never leaves a seat
└── Signal                           how a seat leaves the flow of its framework
    ├── Halted                       raised on request, or where no soft halt exists
    └── Diverted                     the run goes on elsewhere; never leaves the run seat
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

TraceErrorCode = Literal["truncated", "not_json", "unknown_format", "too_large", "unreadable"]


class MisstepError(Exception):
    """Everything misstep raises on purpose."""


@dataclass(frozen=True, slots=True)
class PolicyMistake:
    """One mistake of a policy: where (`line` is 1-based), what, and what to do about it."""

    where: str
    line: int | None
    problem: str
    remedy: str

    def __str__(self) -> str:
        place = f"line {self.line}, `{self.where}`" if self.line else f"`{self.where}`"
        return f"{place}: {self.problem}. {self.remedy}"


class PolicyError(MisstepError, ValueError):
    """A policy that cannot be used; `mistakes` lists all of them, `source` names the file."""

    def __init__(self, source: str, mistakes: Sequence[PolicyMistake]) -> None:
        self.source, self.mistakes = source, tuple(mistakes)
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in self.mistakes))


class AttachError(MisstepError, ValueError):
    """A policy asks for a decision no seat of the adapter can enact; `gaps` lists each."""

    def __init__(self, adapter: str, gaps: Sequence[str]) -> None:
        self.adapter, self.gaps = adapter, tuple(gaps)
        super().__init__(f"`{adapter}` cannot enact this policy:\n" + "\n".join(f"  - {gap}" for gap in self.gaps))


class TraceError(MisstepError, ValueError):
    """A saved trace that cannot be read; `code` is part of the `analyze` contract."""

    def __init__(self, code: TraceErrorCode, message: str) -> None:
        self.code = code
        super().__init__(message)


class MissingExtraError(MisstepError, ImportError):
    """An adapter was imported without its framework."""

    def __init__(self, adapter: str, extra: str, missing: str) -> None:
        self.extra = extra
        super().__init__(f"`{adapter}` needs `{missing}`: pip install 'misstep[{extra}]'")


class UnsupportedVersionError(MisstepError, ImportError):
    """A framework older than the adapter works with."""

    def __init__(self, framework: str, found: str, needed: str) -> None:
        self.found, self.needed = found, needed
        super().__init__(
            f"misstep works with `{framework}` {needed} or newer, found {found}: pip install -U '{framework}>={needed}'"
        )


class VerificationError(MisstepError, RuntimeError):
    """An app cannot be verified as things are: the message says why, and when it can."""


class ChangedFrameworkError(MisstepError, ImportError):
    """
    A framework is not what an adapter relies on, so that it would be guarded half; nothing was attached.

    `missing` lists what is not there, `found` the versions that are installed, by distribution; `tried` maps each to
    (oldest that works, first untried).
    """

    def __init__(
        self, adapter: str, missing: Sequence[str], found: Mapping[str, str], tried: Mapping[str, tuple[str, str]]
    ) -> None:
        self.missing, self.found, self.tried = tuple(missing), dict(found), dict(tried)
        installed = ", ".join(f"{name} {version}" for name, version in found.items())
        bounds = " ".join(f"'{name}>={oldest},<{untried}'" for name, (oldest, untried) in tried.items())
        super().__init__(
            f"`{adapter}` does not work with what is installed ({installed}): it relies on {', '.join(missing)}. "
            f"Nothing was attached. Install what it was tried on, pip install {bounds}, or a newer misstep"
        )


class JournalError(MisstepError, OSError):
    """The journal at `path` cannot be used; `problem` says why."""

    def __init__(self, path: str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"journal `{path}`: {problem}. Check the path, its permissions and the space on the disk")


class ToolTimeout(MisstepError, TimeoutError):
    """A tool did not answer within `seconds`; a seat makes a `ToolFailed` of it whose `error_type` is this name."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"no answer within {seconds:g} s")


class Signal(MisstepError):
    """Leaves the flow of a framework on purpose; each adapter's own subclasses are its framework's signals too."""


class Diverted(Signal):
    """The run goes on from an earlier state, or with another agent: the run seat catches it and sees to that."""


class Halted(Signal):
    """The guard ended the run."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
