"""Streams: the core's loop round a handler that yields before it answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from misstep.enact import Call, Loop, Rescue, Steps, aasked
from misstep.guard import Guard
from misstep_autogen.place import Stream


async def driven(
    guard: Guard,
    steps: Steps,
    begin: Callable[[Any], Stream],
    rescue: Rescue[Any],
    last: type,
    *,
    hold: bool = False,
) -> Stream:
    """
    What `begin` streams for each request, and at the end the answer the core passes on.

    An item of type `last` is a stream's answer. With `hold`, all other items are kept until an answer is accepted,
    and those of a rejected one are dropped.
    """
    loop = Loop(guard, steps, rescue)
    kept: list[Any] = []
    while (effect := loop.advance()) is not None:
        answer, kept = None, []
        try:
            if not isinstance(effect, Call):
                loop.answer = await aasked(guard, effect)
                continue
            async with aclosing(begin(effect.request)) as stream:
                async for item in stream:
                    if isinstance(item, last):
                        answer = item
                    elif hold:
                        kept.append(item)
                    else:
                        yield item
            loop.returned(answer)
        except BaseException as error:
            loop.error = error
    for item in kept:
        yield item
    if loop.value is not None:
        yield loop.value
