"""What a verification found: each seat of each part of an app, how it stands, and in one sentence what that means."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from misstep.seats import Seat


class Standing(StrEnum):
    """How the guard stands to one seat of an app."""

    ENFORCED = "enforced"
    """What was to be stopped was stopped, in every way it was run."""
    SEEN_ONLY = "seen only"
    """The guard saw it and it happened all the same."""
    NOT_IN_PATH = "not in the path"
    """It happened and the guard knew nothing of it."""
    NOT_EXERCISED = "not exercised"
    """The canary did not get there, so nothing is known."""


class Checked(BaseModel):
    """One seat of one part of the app: `ways` are those ways of running it in which it stands so."""

    model_config = ConfigDict(frozen=True)

    seat: Seat
    part: str
    standing: Standing
    ways: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        where = f" in {', '.join(self.ways)}" if self.ways else ""
        why = f": {self.why}" if self.why else ""
        return f"{self.seat} `{self.part}` {self.standing}{where}{why}"


class Verification(BaseModel):
    """
    What was found of a whole app. `attached` says how the guard is attached, empty where it is not at all;
    `ways` are all in which the app was run; `switched` is what keeps the guard from acting whatever its seats can do.
    """

    model_config = ConfigDict(frozen=True)

    app: str
    attached: str = ""
    ways: tuple[str, ...] = ()
    switched: tuple[str, ...] = ()
    checked: tuple[Checked, ...] = ()

    @property
    def exceptions(self) -> tuple[Checked, ...]:
        """Every seat that is not enforced."""
        return tuple(each for each in self.checked if each.standing is not Standing.ENFORCED)

    @property
    def broken(self) -> bool:
        """Whether anything is known to get past the guard; what was not exercised is not known."""
        past = (Standing.SEEN_ONLY, Standing.NOT_IN_PATH)
        return bool(self.switched) or any(each.standing in past for each in self.checked)

    @property
    def protected(self) -> bool:
        """Whether every seat is enforced, in every way the app was run."""
        return bool(self.checked) and not self.switched and not self.exceptions

    @property
    def headline(self) -> str:
        """*protected*, *protected except*, or *not protected*."""
        if self.protected:
            return "protected"
        nothing = bool(self.switched) or len(self.exceptions) == len(self.checked)
        return "not protected" if nothing else "protected except"

    @property
    def verdict(self) -> str:
        """The headline with what there is against it."""
        against = "; ".join([*self.switched, *map(str, self.exceptions)])
        return f"{self.headline} {against}".rstrip()
