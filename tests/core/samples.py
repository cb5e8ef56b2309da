"""Real documents to read: made by the SDKs at test time, or once where an SDK is too heavy for that."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"

MAKERS: dict[str, tuple[str, ...]] = {
    "langchain": ("langchain", "langsmith", "langfuse", "opentelemetry.exporter.otlp.proto.common"),
    "langfuse": ("langfuse", "opentelemetry.exporter.otlp.proto.common"),
    "autogen": ("autogen_agentchat", "autogen_ext", "opentelemetry.exporter.otlp.proto.common"),
    "crewai": ("crewai",),
    "otlp": ("opentelemetry.util.genai", "opentelemetry.exporter.otlp.proto.common"),
}
"""What makes documents at test time, and what must be installed for it."""

STORIES: dict[str, str] = {
    "langchain:dumps": "langchain",
    "langchain:messages_to_dict": "langchain",
    "langchain:model_dump": "langchain",
    "langchain:state": "langchain",
    "langsmith:batch": "langchain",
    "langsmith:single": "langchain",
    "langsmith:list": "langchain",
    "langsmith:tree": "langchain",
    "otlp:langfuse handler": "langchain",
    "otlp:langfuse": "langfuse",
    "langfuse:page": "langfuse",
    "langfuse:trace": "made/langfuse.json",
    "autogen:result": "autogen",
    "autogen:messages": "autogen",
    "autogen:agent": "autogen",
    "autogen:team state": "autogen",
    "autogen:agent state": "autogen",
    "otlp:autogen": "autogen",
    "otlp:autogen enclosed": "autogen",
    "crewai:native": "crewai",
    "crewai:text": "crewai",
    "crewai:task": "crewai",
    "otlp:genai": "otlp",
    "otlp:genai events": "otlp",
    "agentdojo:run": "made/agentdojo.json",
    "agentdojo:no ids": "made/agentdojo.json",
}
"""Documents that tell the run of `tests/fixtures/story.py`: source and name, and what makes them."""

SAMPLES: dict[str, str] = {
    **STORIES,
    "autogen:handoff": "autogen",
    "langchain:broken call": "langchain",
    "sweagent:text": "made/sweagent.json",
    "sweagent:calls": "made/sweagent.json",
    "sweagent:responses": "made/sweagent.json",
}
"""All documents."""

LINES = frozenset({"langsmith:batch", "langsmith:single", "otlp:langfuse handler", "otlp:langfuse"})
"""Those that are several requests: a file of them is JSON Lines."""


def document(name: str) -> Any:
    """A document, made anew in each process that asks; the test is skipped where its SDK is not installed."""
    maker = SAMPLES[name]
    if maker.startswith("made/"):
        return json.loads((FIXTURES / maker).read_text(encoding="utf-8"))["documents"][name]
    for package in MAKERS[maker]:
        if not _installed(package):
            pytest.skip(f"{package} is not installed")
    return json.loads(_made(maker))[name]


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


@functools.cache
def _made(maker: str) -> str:
    """What a maker prints: it runs in a process of its own, since SDKs keep global state."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.fixtures.make_{maker}"],
        cwd=FIXTURES.parents[1],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


def as_text(name: str, content: Any) -> str:
    """A document as the text of a file."""
    return "\n".join(map(json.dumps, content)) if name in LINES else json.dumps(content)


def file_of(folder: Path, name: str, content: Any = None) -> Path:
    """A document, or other content in its place, as a file whose name tells nothing."""
    path = folder / "file"
    path.write_text(as_text(name, document(name) if content is None else content), encoding="utf-8")
    return path
