"""Points in time, as JSON has them."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def seconds(given: object) -> float:
    """Seconds since the epoch of an ISO 8601 text or a number; 0 where there is none. A text without a zone is UTC."""
    if isinstance(given, bool):
        return 0.0
    if isinstance(given, int | float):
        return float(given) if abs(given) < 1e18 and math.isfinite(given) else 0.0
    try:
        when = datetime.fromisoformat(given) if isinstance(given, str) else None
        if when is None:
            return 0.0
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
