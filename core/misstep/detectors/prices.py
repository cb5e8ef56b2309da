"""What models cost and how much they can read: from tables users write, or from the library `genai-prices`."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

V = TypeVar("V")

GENAI_PRICES = "genai-prices"
_SAMPLE = 1000  # tokens; low enough for the first tier of every tiered price


@dataclass(frozen=True, slots=True)
class Limits:
    """What a source knows of a model: dollars per million input and output tokens, tokens of its context window."""

    price: tuple[float, float] | None = None
    window: int | None = None


def known_model(model: str, table: Mapping[str, V]) -> V | None:
    """A model's entry: by its name, with or without the provider before it, or by the longest beginning listed."""
    if not table or not model:
        return None
    for name in (model, model.rpartition("/")[2]):
        if name in table:
            return table[name]
    short = model.rpartition("/")[2]
    return table.get(max((known for known in table if short.startswith(known)), key=len, default=""))


@functools.lru_cache(maxsize=256)
def genai_limits(model: str) -> Limits:
    """
    What `genai-prices` knows of a model, nothing where it knows none; no network is used.

    Of a tiered price the first tier counts. Raises ValueError where the library is not installed.
    """
    try:
        library = importlib.import_module("genai_prices")
    except ImportError:
        raise ValueError(f"{GENAI_PRICES!r} needs an extra: pip install 'misstep[prices]'") from None
    try:
        asked = library.calc_price(library.Usage(input_tokens=_SAMPLE, output_tokens=0), model)
        answered = library.calc_price(library.Usage(input_tokens=0, output_tokens=_SAMPLE), model)
    except LookupError:
        return Limits()
    scale = 1e6 / _SAMPLE
    price = float(asked.total_price) * scale, float(answered.total_price) * scale
    return Limits(price, asked.model.context_window)
