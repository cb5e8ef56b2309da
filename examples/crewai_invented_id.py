"""CrewAI: an agent refunds an order number it made up. A policy refuses the call, and the agent looks it up."""

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
    if "refunded" in texts[-1]:
        return Say("The order is refunded.")
    if "R2245" in texts[-1]:
        return Ask("refund", {"order_id": "R2245"}, id="b")
    if "[misstep: ungrounded_argument]" in texts[-1]:
        return Ask("find_order", {"customer": "Mia"}, id="a")
    return Ask("refund", {"order_id": "R1001"}, id="c")


def run(guard: Guard | None = None) -> str:
    refunded.clear()
    llm, tools = ScriptedLLM(Script(careless)), [find_order, refund]
    clerk = Agent(role="clerk", goal="help", backstory="a shop", llm=llm, tools=tools)
    crew = Crew(agents=[clerk], tasks=[Task(description="Refund Mia's order.", expected_output="done", agent=clerk)])
    (guarded(crew, guard) if guard else crew).kickoff()
    return (
        "refunded R2245, Mia's" if refunded == ["R2245"] else f"FAILED: refunded {refunded[0]}, somebody else's order"
    )


bare = with_misstep = run

if __name__ == "__main__":
    guard = Guard(POLICY)
    print(f"bare: {bare()}\nguarded: {with_misstep(guard)}\n{guard.report()}")
