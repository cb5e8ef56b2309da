"""Streams: the core's driver round a handler that yields before it answers, without a task of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import aclosing
from typing import Any

from misstep.enact import Rescue, Steps, adrive
from misstep.guard import Guard


class _Handed:
    """What the handler awaits: the request goes out of the driver, to the generator that can yield."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self._request)


async def driven(
    guard: Guard,
    steps: Steps,
    begin: Callable[[Any], AsyncIterator[Any]],
    rescue: Rescue[Any],
    last: type,
    *,
    hold: bool = False,
) -> AsyncIterator[Any]:
    """
    What `begin` streams for each request, and at the end the answer the core passes on.

    An item of type `last` is a stream's answer. With `hold`, all other items are kept until an answer is accepted,
    and those of a rejected one are dropped.
    """

    async def handler(request: Any) -> Any:
        return await _Handed(request)

    driver = adrive(guard, steps, handler, rescue)
    answer: Any = None
    error: BaseException | None = None
    kept: list[Any] = []
    while True:
        try:
            request = driver.send(answer) if error is None else driver.throw(error)
        except StopIteration as end:
            value = end.value
            break
        answer, error, kept = None, None, []
        try:
            async with aclosing(begin(request)) as stream:  # type: ignore[type-var]
                async for item in stream:
                    if isinstance(item, last):
                        answer = item
                    elif hold:
                        kept.append(item)
                    else:
                        yield item
        except BaseException as raised:
            error = raised
    for item in kept:
        yield item
    if value is not None:
        yield value
