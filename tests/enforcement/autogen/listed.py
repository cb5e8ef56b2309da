"""The enforcement paths only AutoGen has, fixed before they were tried."""

from __future__ import annotations

from tests.enforcement.path import Framework, Listed

_RUNS = (
    Listed("agent.run", "goes past `on_messages_stream` in agents that define `on_messages` alone"),
    Listed("agent.run_stream", "an entrance of its own"),
    Listed("agent.on_messages", "an entrance of its own: a turn without a run"),
    Listed("agent.on_messages_stream", "an entrance of its own: a turn without a run"),
    Listed("team.run", "an entrance of its own"),
    Listed("team.run_stream", "an entrance of its own"),
    Listed("a team read by Console", "AutoGen's own reader of streams"),
    Listed("a task of several messages", "a list in the place of a text"),
    Listed("a run without a task", "a team goes on from where it stopped"),
    Listed("a team run twice", "the manager and its patches live on between runs"),
    Listed("a team reset between runs", "reset empties what agents remember"),
    Listed("a team paused and resumed", "experimental: messages to every agent past the turn"),
    Listed("a team that is running already", "AutoGen raises ValueError at the second run"),
    Listed("a reader that leaves the stream", "breaking out does not stop the run cleanly"),
    Listed("a token cancelled before the run", "the run ends before its first turn"),
    Listed("a run that leaves out the task's messages", "`output_task_messages=False`"),
    Listed("a team that tells its own events", "`emit_team_events=True` puts the manager's events into the stream"),
)

_TEAMS = (
    Listed("a round-robin team", "each kind of team chooses speakers in its own way"),
    Listed("a selector's model", "the manager keeps a model client of its own"),
    Listed("a selector that streams", "`model_client_streaming=True` calls `create_stream`"),
    Listed("a selector function", "it chooses a speaker with no model asked"),
    Listed("a swarm", "the turn goes where a HandoffMessage says"),
    Listed("a graph's fan-out", "several agents have their turns at once"),
    Listed("a graph's loop", "an agent has its turn again by an edge"),
    Listed("a graph's condition", "a function of the application decides who is next"),
    Listed("an orchestrator's model", "MagenticOne chooses inside `_orchestrate_step`"),
    Listed("an agent of MagenticOne's", "it is given its turn past `select_speaker`"),
    Listed("a turn taken from an orchestrated agent", "MagenticOne leaves no choice of a speaker to replace"),
    Listed("a team in a team", "a nested team has a runtime of its own"),
    Listed("an agent in two teams at once", "one object, two runs: their calls must not mix"),
    Listed("a participant swapped before the first run", "AutoGen makes its participants at the first run"),
    Listed("a runtime started earlier", "context variables of the run are not seen there"),
    Listed("two teams on one runtime", "whose turn it is must be known without a context variable"),
    Listed("a runtime of several processes", "what runs in another process no instance patch reaches"),
    Listed("an agent of the Core API", "no AgentChat agent: a ToolAgent's tools are called past every seat"),
)

_AGENTS = (
    Listed("an agent called as a tool", "AgentTool calls `run_stream` within a tool call"),
    Listed("a team called as a tool", "TeamTool calls `run_stream` within a tool call"),
    Listed("what an agent called as a tool streams", "StaticStreamWorkbench passes inner events on, autogen#8008"),
    Listed("an agent called as a tool twice at once", "one object at work in two calls of one reply"),
    Listed("an agent run inside a function tool", "no walk over a team's parts finds it"),
    Listed("an agent run in a sync tool's thread", "AutoGen runs sync tools in threads without our context"),
    Listed("a society of mind", "an agent that is a team inside, with a model of its own"),
    Listed("a message filter agent", "an agent round an agent"),
    Listed("a user proxy", "a person must not be asked once the run is halted"),
    Listed("a code executor with a model", "code of its own model's reply is run, and no tool is called"),
    Listed("a code executor without a model", "code in a message is run, and no model is asked"),
    Listed("a code executor's approval function", "AutoGen's own gate: both must hold"),
    Listed("an agent of one's own", "no model, no workbench: only its turns are seen"),
    Listed("an agent of one's own that calls its tools itself", "its calls never reach a workbench"),
    Listed("an agent of one's own with its client elsewhere", "no `_model_client` to put a proxy in the place of"),
)

_TOOLS = (
    Listed("a workbench that raises", "the agent waits for ever, autogen#7956"),
    Listed("a workbench that is cancelled", "the agent waits for ever, autogen#8182"),
    Listed("a workbench that cannot list its tools", "asked within the call: the same wait"),
    Listed("a workbench of one's own", "as McpWorkbench is: no list of tool objects, and only `call_tool`"),
    Listed("a tool of an MCP server", "McpWorkbench calls its session"),
    Listed("several workbenches", "an agent takes a list of them"),
    Listed("a workbench shared by two agents", "whose call it is must not be mixed up"),
    Listed("a workbench added after attaching", "AutoGen keeps the application's own list"),
    Listed("a workbench that takes no attributes", "an instance patch cannot be put on it"),
    Listed("a tool under another name", "StaticWorkbench takes overrides"),
    Listed("a tool that streams", "`call_tool_stream`, not `call_tool`"),
    Listed("a hand-off that is refused", "hand-off tools are called past the workbenches"),
    Listed("a hand-off tool that raises", "the agent waits for ever"),
    Listed("a hand-off beside a refused call", "the hand-off carries calls and results to the next agent"),
    Listed("two hand-offs in one reply", "AutoGen follows the first and tells of the second"),
    Listed("cancelled with a tool in flight", "a bare agent waits for ever"),
    Listed("a tool that outlives its run", "what it calls later belongs to no run"),
    Listed("no tool iteration left", "the results themselves are the agent's answer"),
    Listed("a reflection on tool use", "one more model call, with no tools"),
    Listed("a loop of tool iterations", "`max_tool_iterations`: many calls in one turn"),
)

_REST = (
    Listed("an intervention handler that would drop a message", "AutoGen never comes to an end, autogen#7642"),
    Listed("an intervention handler that fails", "AutoGen never comes to an end"),
    Listed("a halt out of a team's runtime", "AutoGen makes RuntimeError of every exception"),
    Listed("an error of an agent's in a team", "it must not be taken for a halt, nor a halt for it"),
    Listed("a termination condition", "it ends a run before what was put off is carried out"),
    Listed("a termination condition that raises", "an error path past the turns"),
    Listed("what a memory finds", "it stands in system messages, beside the agent's own"),
    Listed("a model shared by two agents", "a patch of the client would not know whose call it is"),
    Listed("a model client swapped after attaching", "the proxy is gone with the client it stood for"),
    Listed("a model client that streams", "`create_stream`: tokens are out before the reply is judged"),
    Listed("a state saved and loaded", "the guard's patches are no part of it"),
    Listed("a team loaded from its component", "a component has no room for a guard"),
    Listed("a structured message in other words", "no text that could be put in its place"),
)

AUTOGEN = Framework("AutoGen", own=(*_RUNS, *_TEAMS, *_AGENTS, *_TOOLS, *_REST))
