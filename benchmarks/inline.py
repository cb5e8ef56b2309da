"""
What one check costs: `python -m benchmarks.inline [--rounds N] [--long N]`.

A tool call with three arguments and a schema, and a 1,000-character message, each under `Guard()` with 200 events of
history and fresh text at every event; beside each its floor, measured in turn in the same process. Then the same
check at event 10,000 (or `--long`) over event 100, and what the run then holds in memory. With LangChain installed,
a whole guarded `create_agent` turn over the same turn with a no-op middleware on the same hooks.

Ratios are what to quote: the machine's speed cancels out of them.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import itertools
import json
import random
import re
import statistics
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from misstep import Guard
from misstep.events import MessageSent, ModelRequested, ModelResponded, Tool, ToolRequested, ToolReturned

RUN = "bench"
SCHEMA = {
    "type": "object",
    "properties": {"user_id": {"type": "string"}, "flight": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["user_id", "flight"],
}
LOOKUP = {"type": "object", "properties": {"query": {"type": "string"}}}
FIVE = [
    re.compile(pattern)
    for pattern in (
        r"[\w.+-]+@[\w-]+\.[\w.]+",
        r"\b(?:\d[ -]?){13,16}\b",
        r"https?://[^\s\"'<>)]+",
        r"\bAKIA[0-9A-Z]{16}\b",
        r"(?i)ignore (?:all |the )?(?:previous|prior|above)",
    )
]
_words = random.Random(7)
_numbers = itertools.count()


def fresh_text(length: int = 1000) -> str:
    """Text nobody has seen before, of the given length in characters."""
    words: list[str] = []
    size = 0
    while size < length:
        word = f"{_words.getrandbits(24):06x}"[: _words.randint(2, 6)] + _words.choice(["", "", "", ",", "."])
        words.append(word)
        size += len(word) + 1
    return " ".join(words)[:length]


def fresh_arguments() -> dict[str, Any]:
    """Three arguments, fresh at every call."""
    number = next(_numbers)
    return {"user_id": f"mia_li_{number}", "flight": f"HAT{number}", "count": number % 7}


def grow(guard: Guard, events: int) -> None:
    """Go on with the run by as many events: a reply, its call, its result, in turn."""
    for _ in range(events // 3):
        number = next(_numbers)
        guard.observe(ModelResponded(run=RUN, agent="a", instance="a", call=f"m{number}", content=fresh_text(200)))
        question = {"query": fresh_text(40)}
        guard.observe(
            ToolRequested(run=RUN, agent="a", instance="a", call=f"g{number}", tool="get", arguments=question)
        )
        guard.observe(
            ToolReturned(run=RUN, agent="a", instance="a", call=f"g{number}", tool="get", output=fresh_text())
        )


def started() -> Guard:
    """A guard with a run that knows its tool."""
    guard = Guard(strict=True)
    guard.open(RUN)
    tools = (Tool("book", "Book a flight", SCHEMA), Tool("get", "Look something up", LOOKUP))
    guard.observe(ModelRequested(run=RUN, agent="a", instance="a", tools=tools))
    guard.observe(MessageSent(run=RUN, agent="a", instance="a", role="user", content=fresh_text(), trust="user"))
    return guard


def timed(call: Callable[[], object]) -> float:
    """Microseconds one call takes."""
    began = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - began) / 1000


def one_tool_call(guard: Guard) -> Callable[[], object]:
    """A check of a fresh call, a healthy one: its arguments were told just before."""
    arguments, call = fresh_arguments(), f"c{next(_numbers)}"
    told = f"{fresh_text(900)} {json.dumps(arguments)}"
    guard.observe(ToolReturned(run=RUN, agent="a", instance="a", call=f"t{call}", tool="get", output=told))
    event = ToolRequested(run=RUN, agent="a", instance="a", call=call, tool="book", arguments=arguments)
    return lambda: guard.observe(event)


def one_message(guard: Guard) -> Callable[[], object]:
    """A check of a fresh 1,000-character tool result."""
    event = ToolReturned(run=RUN, agent="a", instance="a", call=f"r{next(_numbers)}", tool="get", output=fresh_text())
    return lambda: guard.observe(event)


def floor_tool_call() -> Callable[[], object]:
    """`sha256(json(arguments))`."""
    arguments = fresh_arguments()
    return lambda: hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()


def floor_message() -> Callable[[], object]:
    """Five plain regular expressions on the text."""
    text = fresh_text()
    return lambda: [pattern.search(text) for pattern in FIVE]


def described(name: str, times: list[float]) -> str:
    """Median, mean and 99th percentile, in microseconds."""
    ordered = sorted(times)
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"{name:<44} p50 {statistics.median(ordered):8.1f}  mean {statistics.fmean(ordered):8.1f}  p99 {p99:8.1f} us"


def checks(rounds: int) -> None:
    """The two checks beside their floors."""
    rows: dict[str, list[float]] = {"tool": [], "tool floor": [], "message": [], "message floor": []}
    guard = started()
    grow(guard, 200)
    for _ in range(rounds):
        rows["tool floor"].append(timed(floor_tool_call()))
        rows["tool"].append(timed(one_tool_call(guard)))
        rows["message floor"].append(timed(floor_message()))
        rows["message"].append(timed(one_message(guard)))
        if guard.session(RUN).run.steps > 400:  # type: ignore[union-attr]
            guard.end(RUN)
            guard = started()
            grow(guard, 200)
    print(described("one tool-call check", rows["tool"]))
    print(described("  floor: sha256(json(arguments))", rows["tool floor"]))
    print(f"  ratio of medians {ratio(rows['tool'], rows['tool floor']):.1f} x (to reach: 12 x)")
    print(described("one 1,000-character message check", rows["message"]))
    print(described("  floor: five plain regexes", rows["message floor"]))
    print(f"  ratio of medians {ratio(rows['message'], rows['message floor']):.2f} x (to reach: 1 x)")


def growth(long: int) -> None:
    """The same at a late event over event 100, in turns."""
    early, late = started(), started()
    grow(early, 100)
    grow(late, long)
    tracemalloc.start()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    rows: dict[str, list[float]] = {"tool": [], "message": [], "late tool": [], "late message": []}
    tracemalloc.stop()
    for _ in range(400):
        if early.session(RUN).run.steps > 150:  # type: ignore[union-attr]
            early.end(RUN)
            early = started()
            grow(early, 100)
        rows["tool"].append(timed(one_tool_call(early)))
        rows["late tool"].append(timed(one_tool_call(late)))
        rows["message"].append(timed(one_message(early)))
        rows["late message"].append(timed(one_message(late)))
    for name in ("tool", "message"):
        print(described(f"one {name} check at event 100", rows[name]))
        print(described(f"  at event {long:,}", rows[f"late {name}"]))
        print(f"  ratio of medians {ratio(rows[f'late {name}'], rows[name]):.2f} x (to reach: 1.2 x)")
    tracemalloc.start()
    grow(late, 6000)
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    grow(late, 12_000)
    gc.collect()
    print(
        f"memory: {(tracemalloc.get_traced_memory()[0] - held) / 1e6:+.1f} MB over the next 12,000 events "
        "(to reach: at most +10 MB)"
    )
    tracemalloc.stop()
    del before


def ratio(these: list[float], those: list[float]) -> float:
    """The ratio of two medians."""
    return statistics.median(these) / statistics.median(those)


def whole_turn(rounds: int) -> None:
    """CPU of a guarded `create_agent` turn over the same turn with a no-op middleware."""
    try:
        from langchain.agents import create_agent
        from langchain.agents.middleware import AgentMiddleware
        from langchain_core.tools import tool

        from misstep_langgraph import MisstepMiddleware
        from misstep_langgraph.testing import ScriptedChatModel
    except ImportError:
        print("whole turn: LangChain is not installed, nothing measured")
        return
    from misstep.testing import Ask, Say, Script

    @tool
    def get(q: str) -> str:
        """Get something."""
        return fresh_text()

    class NoOp(AgentMiddleware):
        """Does nothing on the same hooks."""

        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request)

        def wrap_tool_call(self, request: Any, handler: Any) -> Any:
            return handler(request)

    def turn(middleware: Any) -> float:
        script = Script(Ask("get", {"q": f"q{next(_numbers)}"}), Say("done"))
        agent = create_agent(ScriptedChatModel(script), [get], middleware=[middleware])
        agent.invoke({"messages": [("user", "warm")]})
        script.seen.clear()
        began = time.process_time_ns()
        agent.invoke({"messages": [("user", "go")]})
        return (time.process_time_ns() - began) / 1000

    guarded, bare = MisstepMiddleware(Guard(strict=True)), NoOp()
    rows: dict[str, list[float]] = {"guarded": [], "bare": []}
    for _ in range(rounds):
        rows["bare"].append(turn(bare))
        rows["guarded"].append(turn(guarded))
    print(described("create_agent turn, guarded (CPU)", rows["guarded"]))
    print(described("  with a no-op middleware (CPU)", rows["bare"]))
    print(f"  ratio of medians {ratio(rows['guarded'], rows['bare']):.2f} x (to reach: 1.10 x)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--long", type=int, default=10_000)
    options = parser.parse_args()
    checks(options.rounds)
    growth(options.long)
    whole_turn(min(options.rounds // 10, 200))


if __name__ == "__main__":
    main()
