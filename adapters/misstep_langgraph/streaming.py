"""Who listens to tokens (private API of langchain-core, tried on 1.7.2 and 1.8.3)."""

from __future__ import annotations

from typing import Any

from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

STREAMING = (_StreamingCallbackHandler, _V2StreamingCallbackHandler)
"""Handlers for whose sake a model is streamed."""


def streams(manager: Any) -> bool:
    """Whether anybody among the callbacks listens to tokens."""
    return any(isinstance(handler, STREAMING) for handler in getattr(manager, "handlers", None) or ())
