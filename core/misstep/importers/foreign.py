"""Importers of other packages: what fails in one is said to be its failure, and stops nothing else."""

from __future__ import annotations

import logging
from dataclasses import replace

from misstep.errors import TraceError
from misstep.importers.trace import Importer, Trace

log = logging.getLogger("misstep")


def guarded(importer: Importer) -> Importer:
    """The importer, with a `matches` that is false where it raises, and a `read` and `gather` of `TraceError` only."""

    def matches(document: object) -> bool:
        try:
            return importer.matches(document)
        except Exception:
            log.exception("the importer %r failed to look at a document", importer.name)
            return False

    def read(document: object, label: str) -> Trace:
        try:
            return importer.read(document, label)
        except TraceError:
            raise
        except Exception as error:
            raise _failed(importer, error) from error

    def gather(documents: list[object]) -> list[object]:
        assert importer.gather is not None
        try:
            return importer.gather(documents)
        except TraceError:
            raise
        except Exception as error:
            raise _failed(importer, error) from error

    return replace(importer, matches=matches, read=read, gather=gather if importer.gather else None)


def _failed(importer: Importer, error: Exception) -> TraceError:
    return TraceError("unreadable", f"the importer `{importer.name}` failed on it: {type(error).__name__}: {error}")
