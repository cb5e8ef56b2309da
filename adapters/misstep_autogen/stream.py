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
            items = begin(effect.request)
            if effect.deadline is not None:
                items = _within(items, effect.deadline)
            async with aclosing(items):
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


async def _within(stream: Stream, seconds: float) -> Stream:
    """
    A stream that has so many seconds to its end. Raises `ToolTimeout`.

    It is read by a task of its own: what does not let itself be cancelled, as a team that waits until it is idle, is
    not waited for, and a slow reader of ours is never cut off.
    """
    read: asyncio.Queue[Any] = asyncio.Queue()
    reading = asyncio.ensure_future(_read(stream, read))
    reading.add_done_callback(lambda task: read.put_nowait(task))
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    try:
        while True:
            item = await within(max(end - clock(), 0.0), read.get())
            if item is reading:
                break
            yield item
    except ToolTimeout:
        reading.cancel()
        raise ToolTimeout(seconds) from None
    except BaseException:
        reading.cancel()
        await asyncio.wait({reading})
        raise
    reading.result()


async def _read(stream: Stream, into: asyncio.Queue[Any]) -> None:
    async with aclosing(stream):
        async for item in stream:
            into.put_nowait(item)
