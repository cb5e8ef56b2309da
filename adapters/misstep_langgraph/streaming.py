"""Who listens to tokens (private API of langchain-core, tried on 1.7.2 and 1.8.3)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler

STREAMING = (_StreamingCallbackHandler, _V2StreamingCallbackHandler)
"""Handlers for whose sake a model is streamed."""


def streams(manager: Any) -> bool:
    """Whether anybody among the callbacks listens to tokens."""
    return any(isinstance(handler, STREAMING) for handler in getattr(manager, "handlers", None) or ())


def without_listeners(manager: Any) -> Any:
    """The same callbacks, but for those who listen to tokens."""
    quiet = copy.copy(manager)
    for name in ("handlers", "inheritable_handlers"):
        setattr(quiet, name, [each for each in getattr(manager, name, ()) if not isinstance(each, STREAMING)])
    return quiet


@contextmanager
def held_back(config: RunnableConfig, *, hold: bool) -> Iterator[None]:
    """While a reply is held back, what is called without a config of its own is heard by nobody who streams."""
    if not hold or not streams(config.get("callbacks")):
        yield
        return
    token = var_child_runnable_config.set({**config, "callbacks": without_listeners(config["callbacks"])})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
