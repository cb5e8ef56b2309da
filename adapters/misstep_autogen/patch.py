"""Instance patches: what misstep changes on an object of the user's, for whom, and how it is put back."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from autogen_core import MessageHandlerContext

from misstep_autogen.live import Live, Root
from misstep_autogen.place import Place

P = TypeVar("P", bound="Patch")

_ATTRIBUTE = "misstep_patch"


class Patch:
    """
    The changes made to one object: `methods` of the same name here stand in for its own.

    They stay for as long as any guarded team or agent holds the object; `holders` has the path by which each reaches
    it. A deep copy of the object has a patch of its own.
    """

    methods: ClassVar[tuple[str, ...]] = ()

    def __init__(self, target: Any) -> None:
        self.target = target
        self.root: Root | None = None
        """Set where `guarded` was called with the object itself."""
        self.holders: dict[Root, str] = {}
        self._originals: dict[str, Any] = {}
        self._own: set[str] = set()

    @classmethod
    def on(cls: type[P], target: Any) -> P:
        """The patch of an object, made but not applied if it has none."""
        found = patch_of(target)
        return found if isinstance(found, cls) else cls(target)

    def hold(self, root: Root, path: str) -> None:
        """Apply the patch, unless another holds the object already. Raises TypeError where it takes no attributes."""
        if not self.holders:
            self.apply()
        self.holders.setdefault(root, path)

    def release(self, root: Root) -> None:
        """Put everything back once nobody holds the object any more."""
        if self.holders.pop(root, None) is not None and not self.holders:
            self.restore()

    def original(self, name: str) -> Any:
        """The object's own method."""
        return self._originals.get(name) or getattr(self.target, name)

    def apply(self) -> None:
        """Put the patch in place."""
        for name in self.methods:
            if hasattr(self.target, name):
                self.put(name, getattr(self, name))
        self.put(_ATTRIBUTE, self)

    def restore(self) -> None:
        """Take the patch away; what somebody else put over it since is left alone."""
        held = vars(self.target)
        for name in self._originals:
            if name == _ATTRIBUTE or held.get(name) == getattr(self, name, None):
                self._put_back(name)

    def put(self, name: str, value: Any) -> None:
        """Set an attribute of the object, remembering the one it had."""
        try:
            held = vars(self.target)
            if name in held:
                self._own.add(name)
            self._originals[name] = held.get(name) if name in held else getattr(self.target, name, None)
            object.__setattr__(self.target, name, value)
        except (TypeError, AttributeError) as error:
            raise TypeError(f"`{type(self.target).__name__}` takes no attributes, so it cannot be guarded") from error

    def _put_back(self, name: str) -> None:
        if name in self._own:
            object.__setattr__(self.target, name, self._originals[name])
        else:
            vars(self.target).pop(name, None)

    def adopted(self) -> Place | None:
        """
        The place of a call on a runtime that was started outside the run: that of the one run that can have made it.

        None where there is no such run, or more than one.
        """
        if not in_handler():
            return None
        found = [(live, path) for root, path in self.holders.items() for live in root.live]
        return self.reached(*found[0]) if len(found) == 1 else None

    def reached(self, live: Live, path: str) -> Place:
        """The place of the object in a run, by its path."""
        name = str(getattr(self.target, "name", ""))
        return Place(live, name, path, path, self.target)


def patch_of(target: Any) -> Any:
    """The patch of an object; None where it is not patched."""
    return getattr(target, "__dict__", {}).get(_ATTRIBUTE)


def in_handler() -> bool:
    """Whether this runs in an AutoGen runtime, as the turn of a team's participant does."""
    try:
        MessageHandlerContext.agent_id()
    except RuntimeError:
        return False
    return True
