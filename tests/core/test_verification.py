"""The canary of a verification: what it takes a call for that bears no id."""

from __future__ import annotations

from misstep.testing import AskAll, Say
from misstep.verification import Canary, Offer, Standing


def test_a_call_without_an_id_is_the_one_that_is_to_get_through() -> None:
    """Of two runs at once, one is let through while the other's call is yet to be refused: that one did not happen."""
    canary, offers = Canary(), [Offer("helper", leads_to="inner")]
    assert isinstance(canary.reply("a", offers, where="first"), AskAll)
    assert isinstance(canary.reply("a", offers, where="first"), Say)
    assert isinstance(canary.reply("a", offers, where="first"), AskAll)
    assert isinstance(canary.reply("a", offers, where="second"), AskAll)
    assert canary.executed("helper")
    assert {each.standing for each in canary.found() if each.part == "a/helper"} == {Standing.NOT_EXERCISED}
    assert not canary.executed("helper")
    assert Standing.NOT_IN_PATH in {each.standing for each in canary.found() if each.part == "a/helper"}


def test_a_call_no_model_proposed_is_judged_where_that_is_wanted() -> None:
    """It is known by who makes it, and is not taken for a call another part of the app proposed."""
    canary = Canary()
    canary.reply("a", [Offer("pay")])
    canary.unasked = True
    assert not canary.executed("pay", speaker="b")
    standings = {each.part: each.standing for each in canary.found()}
    assert standings == {"a/pay": Standing.NOT_EXERCISED, "b/pay": Standing.NOT_IN_PATH}
