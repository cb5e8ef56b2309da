"""Instance patches: what misstep changes on an object of the user's, for whom, and how it is put back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar, TypeVar

from misstep_autogen.live import Root

P = TypeVar("P", bound="Patch")

_PATCH = "misstep_patch"


class Patch:
    """
    The changes made to one object: the `methods` named here stand in for its own.

    They stay for as long as any guarded team or agent holds the object; `holders` has the path by which each reaches
    it, `root` is set where `guarded` was called with the object itself. A deep copy of the object has its own patch.
    """

    methods: ClassVar[tuple[str, ...]] = ()

    def __init__(self, target: Any) -> None:
        self.target = target
        self.root: Root | None = None
        self.holders: dict[Root, str] = {}
        self._originals: dict[str, Any] = {}
        self._ours: dict[str, Any] = {}
        self._own: set[str] = set()

    @classmethod
    def on(cls: type[P], target: Any) -> P:
        """The patch of an object; one that is not applied yet where it has none."""
        found = patch_of(target)
        return found if isinstance(found, cls) else cls(target)

    def hold(self, root: Root, path: str) -> None:
        """Apply the patch, unless somebody holds the object already. Raises TypeError where it takes no attributes."""
        if not self.holders:
            self.apply()
        self.holders.setdefault(root, path)

    def release(self, root: Root) -> None:
        """Put everything back once nobody holds the object any more."""
        if self.holders.pop(root, None) is not None and not self.holders:
            self.restore()

    def original(self, name: str) -> Any:
        """The object's own method; that of its class is looked up when it is called, as Python does."""
        found = None if name in self._own else getattr(type(self.target), name, None)
        return found.__get__(self.target) if inspect.isfunction(found) else self._originals[name]

    def foreign(self) -> Iterator[tuple[str, Any]]:
        """What somebody else has put in the place of the patch since, by the names of the attributes."""
        held = vars(self.target)
        return ((name, held.get(name)) for name, ours in self._ours.items() if held.get(name) != ours)

    def ours(self, name: str) -> Any:
        """What the patch has put in the place of an attribute."""
        return self._ours[name]

    def put_under(self, name: str, value: Any) -> Callable[[], None]:
        """Put something in the place of what the object itself has under the patch; returns what undoes it."""
        if name not in self._own:
            return lambda: None
        kept, self._originals[name] = self._originals[name], value
        return partial(self._originals.__setitem__, name, kept)

    @property
    def further(self) -> Iterable[Patch]:
        """The patches of what the object has made for itself."""
        return ()

    def apply(self) -> None:
        """Put the patch in place."""
        for name in self.methods:
            if hasattr(self.target, name):
                self.put(name, getattr(self, name))
        self.put(_PATCH, self)

    def renew(self) -> None:
        """Put in place again what the application has replaced since; a method put over ours goes on calling ours."""

    def restore(self) -> None:
        """Take the patch away; what somebody else has put over it since is left alone."""
        held = vars(self.target)
        for name, ours in self._ours.items():
            if held.get(name) != ours:
                continue
            if name in self._own:
                object.__setattr__(self.target, name, self._originals[name])
            else:
                del held[name]

    def put(self, name: str, value: Any) -> None:
        """Set an attribute of the object, and remember the one it had."""
        try:
            if name in vars(self.target):
                self._own.add(name)
            self._originals[name] = getattr(self.target, name, None)
            object.__setattr__(self.target, name, value)
        except (TypeError, AttributeError) as error:
            raise TypeError(f"`{type(self.target).__name__}` takes no attributes, so it cannot be guarded") from error
        self._ours[name] = value


def patch_of(target: Any) -> Any:
    """The patch of an object; None where it has none."""
    return getattr(target, "__dict__", {}).get(_PATCH)
