"""What an enforcement path is, and the list of those every framework is held against, fixed before they were tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Proof = Callable[[], None]
State = Literal["holds", "declared", "absent"]


@dataclass(frozen=True)
class Listed:
    """One path on the list: its name, and where it was seen to let something through, or named as a danger."""

    name: str
    source: str


@dataclass(frozen=True)
class Tried:
    """
    What is claimed of one path on one framework, and its proof.

    `holds`: the proof drives the framework down the path and finds that nothing got through. `declared`: it shows
    that the framework leaves no way to hold it, and that misstep says so. `absent`: the framework has no such path;
    there is no proof, only a reason.
    """

    state: State
    why: str = ""
    proof: Proof | None = None


@dataclass
class Framework:
    """One framework's answers to the list, and the paths that only it has."""

    name: str
    own: tuple[Listed, ...] = ()
    tried: dict[str, Tried] = field(default_factory=dict)

    @property
    def listed(self) -> Mapping[str, Listed]:
        """All there is to be tried here, by name."""
        return {path.name: path for path in (*COMMON, *self.own)}

    def holds(self, *names: str) -> Callable[[Proof], Proof]:
        """The function proves that these paths hold."""
        return self._proves(names, "holds", "")

    def declares(self, *names: str, why: str) -> Callable[[Proof], Proof]:
        """The function proves that these paths cannot be held, and that misstep says so."""
        return self._proves(names, "declared", why)

    def lacks(self, *names: str, why: str) -> None:
        """The framework has no such paths."""
        for name in names:
            self._add(name, Tried("absent", why))

    def _proves(self, names: tuple[str, ...], state: State, why: str) -> Callable[[Proof], Proof]:
        def take(proof: Proof) -> Proof:
            for name in names:
                self._add(name, Tried(state, why, proof))
            return proof

        return take

    def _add(self, name: str, tried: Tried) -> None:
        if name not in self.listed:
            raise ValueError(f"{self.name}: {name!r} is not on the list")
        if name in self.tried:
            raise ValueError(f"{self.name}: {name!r} is tried twice")
        self.tried[name] = tried


COMMON: tuple[Listed, ...] = (
    # what other tools let through, or held, on the versions they were tried on
    Listed("a card number in a call's arguments", "LangChain 1.4.7 PIIMiddleware(block) ran the tool, langchain#37659"),
    Listed("a card number in an older message", "LangChain 1.4.7 PIIMiddleware(block) let it pass, langchain#40704"),
    Listed("raw words while a rewritten reply streams", "LangChain 1.4.7 PIIMiddleware(redact), langchain#35011"),
    Listed("a rejected call and a hook that runs it", "LangChain HumanInTheLoop and jump_to, langchain#40491"),
    Listed("a hook that runs a call before it is asked about", "the other order of hooks, langchain#40491"),
    Listed("a policy from a file", "NeMo Guardrails 0.24.1 GuardrailsMiddleware(config_path) holds"),
    Listed("a policy's text in the place of its path", "NeMo Guardrails 0.24.1 loads no rails and says nothing"),
    Listed("a tool that is not allowed", "AGT 5.0.0 LangGraphKernel.wrap_graph ran it"),
    Listed("no tool calls at all", "AGT 5.0.0 wrap_graph and CrewAI hooks, max_tool_calls=0, ran it"),
    Listed("a forbidden pattern that is only mentioned", "AGT 5.0.0 blocked_patterns scans the whole state"),
    Listed("a denied tool at the framework's own hook", "AGT 5.0.0 CrewAI hooks hold"),
    Listed("a rule that raises and is fail-closed", "AGT 5.0.0 CrewAI: the tool proceeds"),
    Listed("nothing left behind once unguarded", "AGT 5.0.0 CrewAI: unregister() leaves its hook"),
    Listed("as installed from the wheel", "AGT 5.0.0: every check raises, CrewAI swallows it, the tool proceeds"),
    Listed("allowed and denied tools in one app", "AGT 5.0.0 as_middleware raises for both"),
    Listed("sync without an event loop, and async", "Edictum 0.19.0 as_middleware crashes in either"),
    Listed("a wrapper round every tool call", "Edictum 0.19.0 as_tool_wrapper holds"),
    Listed("a plain deny rule", "agent-control 8.15 holds"),
    Listed("a check that crashes", "agent-control 8.15 holds"),
    Listed("a rule over two calls in a long run", "Invariant 0.3.5 raises at the tenth tool call"),
    # faults of the guard's own, in every seat
    Listed("the guard crashes in the model seat", "a swallowed exception is a silent pass; AGT 5.0.0 on CrewAI"),
    Listed("the guard crashes in the tool seat", "CrewAI swallows hook exceptions; AutoGen hangs"),
    Listed("the guard crashes in the run seat", "the host must get its result all the same"),
    Listed("the guard crashes in the turn seat", "the host must get its result all the same"),
    Listed("the guard crashes in the message seat", "the host must get its result all the same"),
    Listed("the guard crashes in a callback", "LangChain passes it to the caller where raise_error is set"),
    Listed("a slow rule", "nothing in process can cut off a running check"),
    Listed("a sink that is down", "a full disk must not stop an agent"),
    # the call
    Listed("an unknown tool", "it never reaches some tool hooks"),
    Listed("arguments that are not an object", "malformed calls go past hooks that want a mapping"),
    Listed("one bad call of several at once", "parallel calls run in threads of their own"),
    Listed("several rules on one call", "order of evaluation: the strictest must win, langchain#40491"),
    Listed("a tool added after attaching", "it never met the wrapper"),
    Listed("one tool object in two agents", "a wrapper for one counts for the other"),
    Listed("a tool that raises", "an error path past the check of results"),
    Listed("an injected result", "what a tool returned is withheld before the model reads it"),
    Listed("the framework tries again by itself", "retries repeat what was refused, or the effect"),
    Listed("an effect that must not happen twice", "a resumed or retried call runs its tool again, langgraph#7780"),
    # the person
    Listed("a person rejects", "the call must not happen"),
    Listed("a person edits, then the run goes on", "the edited call, and only that, happens, once"),
    Listed("nobody answers", "a question without an answer is a no"),
    Listed("the approver raises", "a crash is no consent"),
    # the run
    Listed("a halt inside a user's try", "ordinary handlers swallow the signal"),
    Listed("a halt while calls run side by side", "siblings must not start new work"),
    Listed("a halt in a nested agent", "the outer agent walks on as if it had succeeded"),
    Listed("a refusal in a nested agent", "inner agents are not in the outer hook's path"),
    Listed("a copy of the app", "with_config, copy and deepcopy lose wrappers"),
    Listed("a run in a thread of its own", "context variables do not cross threads by themselves"),
    Listed("many runs at once", "the state of one run must not judge another"),
    Listed("a run that is cancelled in a call", "no hang, and the next run is judged"),
    Listed("a second run after a crash", "an exception must not leave the guard half attached"),
    Listed("a second guard on the same app", "two guards: both enforce, or the second is refused or takes over"),
    Listed("guarding twice", "a call judged twice counts twice"),
    Listed("the policy changes in mid-run", "an event is judged by the old one or the new one, never by parts"),
    Listed("guard off, then on again", "a switched-off guard must not stay off unseen"),
    Listed("a policy the seats cannot enact", "a rule that is silently not enforced"),
    # the model
    Listed("a rejected reply in the conversation", "what was thrown away must not be read again"),
    Listed("a rejected reply while it streams", "tokens are out before the verdict"),
    Listed("a reply with words beside its calls", "only one of the two is judged"),
    Listed("a model that raises", "an error path past the check of replies"),
    Listed("a structured answer", "output that goes past the model hook"),
    Listed("content in parts, with an image", "words beside an image are words"),
)
"""What every framework is held against."""
