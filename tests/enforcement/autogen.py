"""The enforcement paths of AutoGen."""

from __future__ import annotations

from tests.enforcement.path import Framework

AUTOGEN = Framework("AutoGen")
