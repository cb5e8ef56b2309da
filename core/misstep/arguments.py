"""A tool's arguments as its framework itself judges them: by the pydantic model it calls the tool with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

Check = Callable[[Mapping[str, Any]], str | None]
"""What is wrong with arguments, in words; None where the framework takes them."""


def checked_by(model: object) -> Check | None:
    """
    The check a pydantic model makes; None for what is none.

    A model takes what it can convert ("5" for an integer), and so does the check. A model that raises anything but
    its `ValidationError` has nothing to say.
    """
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return None

    def check(arguments: Mapping[str, Any]) -> str | None:
        try:
            model.model_validate(dict(arguments))
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False, include_context=False)
            return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}".lstrip(": ") for one in wrong[:16])
        except Exception:
            return None
        return None

    return check
