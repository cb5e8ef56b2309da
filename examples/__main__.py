"""All three examples: `python -m examples`. Exits with 1 unless every bare run fails and every guarded one succeeds."""

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from examples import autogen_empty_reply, crewai_invented_id, langgraph_loop
from misstep import Guard

EXAMPLES = {
    "LangGraph": (langgraph_loop, Guard()),
    "AutoGen": (autogen_empty_reply, Guard()),
    "CrewAI": (crewai_invented_id, Guard(crewai_invented_id.POLICY)),
}


def main() -> int:
    table = Table("framework", "without misstep", "with misstep", "what misstep did", show_lines=True)
    right = True
    for name, (example, guard) in EXAMPLES.items():
        bare, held = example.bare(), example.with_misstep(guard)
        (run,) = guard.report().runs
        did = [f"{each.anomaly} at step {each.step} -> {each.kind}" for each in run.decisions]
        helped = all(each.took_effect and not each.recurred for each in run.decisions)
        did.append("and it did not come back" if helped else "and it came back")
        table.add_row(name, escape(bare), escape(held), escape("\n".join(did)))
        right = right and bare.startswith("FAILED") and not held.startswith("FAILED") and helped
    Console().print(table)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
