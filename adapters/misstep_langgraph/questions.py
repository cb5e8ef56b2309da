"""Questions to a person, asked by LangGraph's own interrupt: which they are, and which answer is to which."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.types import Command, Interrupt

from misstep.approval import question_of
from misstep.calls import written
from misstep.decisions import Ask
from misstep.events import ToolRequested
from misstep.session import Session, Verdict
from misstep_langgraph.signals import Paused

Payload = Mapping[str, Any]


class Questions:
    """
    The answers a run was given, by question.

    A question's id is made of what the person is shown, so an answer counts for that call with those arguments and
    for nothing else; LangGraph's own counting of interrupts, which parallel calls of one node mix up, is not used.
    """

    __slots__ = ("answers",)

    KEEP = 1000

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}

    def take(self, answers: Mapping[str, Any]) -> None:
        """Keep answers, by the ids of the questions; beyond 1,000 the oldest go."""
        self.answers.update(answers)
        while len(self.answers) > self.KEEP:
            self.answers.pop(next(iter(self.answers)))

    def ask(self, *questions: Payload) -> list[Any]:
        """Their answers; as long as one of them has none, `Paused` is raised with all that are open."""
        asked = {id_of(question): question for question in questions}
        waiting = [(id_, question) for id_, question in asked.items() if id_ not in self.answers]
        if waiting:
            raise Paused(tuple(Interrupt(value=dict(question), id=id_) for id_, question in waiting))
        return [self.answers[id_] for id_ in asked]

    def done(self, question: Payload) -> None:
        """The call was made: if it is made again, somebody is asked again."""
        self.answers.pop(id_of(question), None)


def questions_of(session: Session) -> Questions:
    """A run's questions, and those of the interrupted run it continues."""
    return session.run.memory("questions", Questions)


def id_of(question: Payload) -> str:
    """A question's id, in the form LangGraph knows ids of interrupts by."""
    parts = (str(question.get(name)) for name in ("misstep", "agent", "call", "tool"))
    return Interrupt.from_ns(None, "\x1f".join((*parts, written(question.get("arguments") or {})))).id


def ours(pending: Sequence[Interrupt]) -> list[Interrupt]:
    """The interrupts that are questions of the guard's."""
    return [each for each in pending if isinstance(each.value, dict) and id_of(each.value) == each.id]


def split(command: Command[Any], pending: Sequence[Interrupt]) -> tuple[dict[str, Any], Command[Any] | None]:
    """The answers to questions of ours that a resume brings, by their ids, and what is left of it for LangGraph."""
    resume, asked = command.resume, {each.id for each in ours(pending)}
    if resume is None or not asked:
        return {}, command
    if isinstance(resume, dict) and resume.keys() & {each.id for each in pending}:
        answers = {id_: answer for id_, answer in resume.items() if id_ in asked}
        rest: Any = {id_: answer for id_, answer in resume.items() if id_ not in asked} or None
    elif len(pending) == 1:
        answers, rest = {pending[0].id: resume}, None
    else:
        return {}, command  # LangGraph says that it must be told which is answered
    left = dataclasses.replace(command, resume=rest)
    return answers, left if left != Command() else None


def recall(session: Session, question: Payload) -> None:
    """A question that was asked before this process began: its call is known again, and to be asked about."""
    call = question.get("call")
    with session.run.lock:
        if call is None or session.remembered(call) is not None:
            return
        session.append(
            ToolRequested(
                run=session.run.id,
                call=call,
                agent=str(question.get("agent")),
                instance=str(question.get("agent")),
                tool=str(question.get("tool")),
                arguments=question.get("arguments") or {},
                history=True,
            )
        )
        session.remember(call, Verdict(Ask(str(question.get("misstep")))))


def batch_of(session: Session, call: str) -> list[Payload]:
    """The questions about calls of the same reply, other than this one."""
    calls, known = session.run.calls, session.run.calls.get(call)
    if known is None or known.batch is None:
        return []
    siblings = [(calls.get(each), asked) for each, asked in session.asked.items() if each != call]
    events = [
        (session.run.find(each.seq), asked)
        for each, asked in siblings
        if each is not None and each.batch == known.batch and each.state in ("open", "cancelled")
    ]
    return [question(event, asked) for event, asked in events if isinstance(event, ToolRequested)]


def question(event: ToolRequested, asked: Ask) -> Payload:
    """What a person is shown of a call."""
    return question_of(asked, event).payload()
