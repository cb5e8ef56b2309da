"""LangGraph: an agent asks the same question again and again. misstep throws the reply away and says why."""

from langchain_core.tools import tool
from langgraph.errors import GraphRecursionError
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from misstep import Guard
from misstep.testing import Ask, Say, Script
from misstep_langgraph import guarded
from misstep_langgraph.testing import ScriptedChatModel


@tool
def order_status(order_id: str) -> str:
    """Look up an order."""
    return f"order {order_id}: still being packed"


def stubborn(texts):
    """A model that only changes its mind when it is told why."""
    if any("[misstep: repeated_call]" in text for text in texts):
        return Say("Your order A17 is still being packed; I will not ask again.")
    return Ask("order_status", {"order_id": "A17"}, id=f"call-{len(texts)}")


def build():
    model = ScriptedChatModel(Script(stubborn)).bind_tools([order_status])
    builder = StateGraph(MessagesState)
    builder.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    builder.add_node("tools", ToolNode([order_status]))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition)
    builder.add_edge("tools", "agent")
    return builder.compile()


TASK = {"messages": [("user", "Where is my order A17?")]}
CONFIG = {"recursion_limit": 50}


def bare() -> str:
    try:
        return build().invoke(TASK, CONFIG)["messages"][-1].content
    except GraphRecursionError:
        return "FAILED: stopped by the recursion limit after 50 steps, everything thrown away"


def with_misstep(guard: Guard) -> str:
    graph = guarded(build(), guard)
    return graph.invoke(TASK, CONFIG)["messages"][-1].content


if __name__ == "__main__":
    guard = Guard()
    print("bare:   ", bare())
    print("guarded:", with_misstep(guard))
    print(guard.report())
