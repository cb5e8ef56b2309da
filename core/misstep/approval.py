"""Approval: what a person is asked, what they may answer, and how long anybody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import queue
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from misstep.decisions import Ask, Default
from misstep.events import ModelResponded, ToolRequested

log = logging.getLogger("misstep")

Verdict = Literal["approve", "edit", "reject"]


@dataclass(frozen=True, slots=True)
class Question:
    """
    What a person is asked: may this call be made (`tool`, `arguments`), or may this text be passed on (`content`)?

    `text` says what was found; `call` is the id of the call, if it is about one. Nobody waits longer than `timeout`
    seconds for the answer; then `default` stands.
    """

    run: str
    agent: str
    text: str
    timeout: float
    default: Default
    call: str | None = None
    tool: str = ""
    arguments: Mapping[str, Any] | None = None
    content: str | None = None

    def payload(self) -> dict[str, Any]:
        """The question as plain data, for a framework that pauses until somebody resumes it with an answer."""
        call = {"tool": self.tool, "arguments": self.arguments}
        about = {"content": self.content} if self.arguments is None else call
        return {
            "misstep": self.text,
            "agent": self.agent,
            "call": self.call,
            **about,
            "answers": ["approve", "edit", "reject"],
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What a person answers; `edited` are the arguments (a mapping) or the text to go on with instead.

    `comment` is told to the agent. `given` is False where nobody answered and the default stands.
    """

    verdict: Verdict
    edited: Any = None
    comment: str = ""
    given: bool = True


def question_of(asked: Ask, event: ModelResponded | ToolRequested, content: str | None = None) -> Question:
    """What a person is asked: may this call be made; or, with `content`, may these words be passed on."""
    call = event if isinstance(event, ToolRequested) else None
    return Question(
        run=event.run,
        agent=event.agent,
        text=asked.question,
        timeout=asked.timeout,
        default=asked.default,
        call=call.call if call is not None else None,
        tool=call.tool if call is not None else "",
        arguments=dict(call.arguments) if call is not None and content is None else None,
        content=content,
    )


class Approver(Protocol):
    """Asks a person: a function of the user's, sync or async. What it raises counts as no answer."""

    def __call__(self, question: Question) -> Answer | Awaitable[Answer]:
        """Wait for the answer; called on a thread of its own, or awaited where it is async and the host is."""
        ...


def answer_to(question: Question, given: object) -> Answer:
    """
    What somebody answered, as it is written where a framework is resumed: an `Answer`, "approve", "reject", a truth
    value, or a mapping with `answer` and perhaps `edited` and `comment`.

    What is none of these, or edits into something else than was asked about, rejects.
    """
    match given:
        case Answer():
            answer = given
        case True | "approve":
            answer = Answer("approve")
        case False | "reject":
            answer = Answer("reject")
        case {"answer": "approve" | "edit" | "reject" as verdict, **rest}:
            answer = Answer(verdict, rest.get("edited"), str(rest.get("comment") or ""))
        case _:
            log.error("an answer to %r cannot be read, and counts as `reject`", question.text)
            return Answer("reject")
    kind = Mapping if question.arguments is not None else str
    if answer.verdict == "edit" and not isinstance(answer.edited, kind):
        log.error("an edit of %r must be a %s, and counts as `reject`", question.text, kind.__name__)
        return Answer("reject", comment=answer.comment)
    return answer


def consult(approver: Approver, question: Question) -> Answer:
    """Ask on a thread of its own, and wait for no longer than the question says."""
    box: queue.SimpleQueue[object] = queue.SimpleQueue()
    _on_thread(approver, question, box.put)
    try:
        given = box.get(timeout=question.timeout)
    except queue.Empty:
        return _unanswered(question, "nobody answered in time")
    return _unanswered(question, given) if isinstance(given, BaseException) else answer_to(question, given)


async def aconsult(approver: Approver, question: Question) -> Answer:
    """`consult` for async code: an async approver is awaited in the loop it belongs to."""
    try:
        return answer_to(question, await asyncio.wait_for(_asked(approver, question), question.timeout))
    except TimeoutError:
        return _unanswered(question, "nobody answered in time")
    except Exception as error:
        return _unanswered(question, error)


async def _asked(approver: Approver, question: Question) -> object:
    if inspect.iscoroutinefunction(approver) or inspect.iscoroutinefunction(type(approver).__call__):
        return await approver(question)  # type: ignore[misc]
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[object] = loop.create_future()

    def settle(given: object) -> None:
        if not answered.done():
            answered.set_result(given)

    def deliver(given: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, given)

    _on_thread(approver, question, deliver)
    given = await answered
    if isinstance(given, BaseException):
        raise RuntimeError(f"the approver raised {type(given).__name__}") from given
    return given


def _on_thread(approver: Approver, question: Question, deliver: Callable[[object], object]) -> None:
    """A daemon's thread: one that waits for a person for ever must not keep the process alive."""

    def ask() -> None:
        try:
            given = approver(question)
            deliver(asyncio.run(_awaited(given)) if inspect.isawaitable(given) else given)
        except BaseException as error:
            deliver(error)

    threading.Thread(target=contextvars.copy_context().run, args=(ask,), name="misstep-approver", daemon=True).start()


async def _awaited(given: Awaitable[Answer]) -> Answer:
    return await given


def _unanswered(question: Question, why: object) -> Answer:
    reason = f"the approver raised {type(why).__name__}" if isinstance(why, BaseException) else why
    log.warning("%s: `%s` stands for %r", reason, question.default, question.text)
    return Answer(question.default, given=False)
