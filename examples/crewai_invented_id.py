"""CrewAI: an agent refunds an order number it made up. A policy refuses the call, and the agent looks it up."""

import os

os.environ.update(CREWAI_DISABLE_TELEMETRY="true", OTEL_SDK_DISABLED="true", CREWAI_TRACING_ENABLED="false")

from crewai import Agent, Crew, Task
from crewai.tools import tool
from misstep import Guard
from misstep.policy import parse_policy
from misstep.testing import Ask, Say, Script
from misstep_crewai import guarded
from misstep_crewai.testing import ScriptedLLM

POLICY = parse_policy("{version: 1, rules: {ungrounded_argument: {ladder: [{refuse: 3}]}}}")
refunded = []


@tool("find_order")
def find_order(customer: str) -> str:
    """Find the order of a customer."""
    return f"the order of {customer} is R2245"


@tool("refund")
def refund(order_id: str) -> str:
    """Refund an order by its number."""
    refunded.append(order_id)
    return f"refunded {order_id}"


def careless(texts):
    """A model that makes a number up, and looks it up once it is told to."""
    if "R2245" in texts[-1] and "refunded" not in texts[-1]:
        return Ask("refund", {"order_id": "R2245"}, id="b")
    if "[misstep: ungrounded_argument]" in texts[-1]:
        return Ask("find_order", {"customer": "Mia"}, id="a")
    if "refunded" in texts[-1]:
        return Say("The order is refunded.")
    return Ask("refund", {"order_id": "R1001"}, id="c")


def run(protect) -> str:
    refunded.clear()
    agent = Agent(role="clerk", goal="help", backstory="a shop", llm=ScriptedLLM(Script(careless)), tools=[find_order, refund])
    protect(Crew(agents=[agent], tasks=[Task(description="Refund Mia's order.", expected_output="done", agent=agent)])).kickoff()
    return f"refunded {refunded[0]}" if refunded == ["R2245"] else f"FAILED: refunded {refunded}, somebody else's order"


def bare() -> str:
    return run(lambda crew: crew)


def with_misstep(guard: Guard) -> str:
    return run(lambda crew: guarded(crew, Guard(POLICY) if guard is None else guard))


if __name__ == "__main__":
    guard = Guard(POLICY)
    print("bare:   ", bare())
    print("guarded:", with_misstep(guard))
    print(guard.report())
