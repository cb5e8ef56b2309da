"""Streams: the core's loop round a handler that yields before it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from misstep.enact import Call, Loop, Rescue, Steps, within
from misstep.errors import ToolTimeout
from misstep.guard import Guard
from misstep_autogen.place import Stream


async def driven(
    guard: Guard,
    steps: Steps,
    begin: Callable[[Any], Stream],
    rescue: Rescue[Any],
    last: type,
    ask: Callable[[Guard, Any], Awaitable[Any]],
    *,
    hold: bool = False,
) -> Stream:
    """
    What `begin` streams for each request, and at the end the answer the core passes on.

    An item of type `last` is a stream's answer. With `hold`, all other items are kept until it is known which answer
    is accepted, and those of any other are dropped. `ask` waits for a person.
    """
    loop = Loop(guard, steps, rescue)
    held: list[tuple[Any, list[Any]]] = []
    while (effect := loop.advance()) is not None:
        answer, kept = None, []
        try:
            if not isinstance(effect, Call):
                loop.answer = await ask(guard, effect)
                continue
            async with aclosing(begin(effect.request)) as stream, aclosing(_timely(stream, effect.deadline)) as items:
                async for item in items:
                    if isinstance(item, last):
                        answer = item
                    elif hold:
                        kept.append(item)
                    else:
                        yield item
            held.append((answer, kept))
            loop.returned(answer)
        except BaseException as error:
            loop.error = error
    for item in next((kept for answer, kept in held if answer is loop.value), ()):
        yield item
    if loop.value is not None:
        yield loop.value


def _timely(stream: Stream, seconds: float | None) -> Stream:
    return stream if seconds is None else _within(stream, seconds)


async def _within(stream: Stream, seconds: float) -> Stream:
    """A stream that has so many seconds to its end; the time its reader takes counts, but is never cut off."""
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    while True:
        try:
            item = await within(max(end - clock(), 0.0), anext(stream))
        except StopAsyncIteration:
            return
        except ToolTimeout:
            raise ToolTimeout(seconds) from None
        yield item
