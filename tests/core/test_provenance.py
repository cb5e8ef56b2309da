"""Provenance: who first said a word, who vouches for it best, and what is admitted to be forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from misstep.provenance import SOURCE, Provenance, Source, Trace
from tests.core.scenes import examples


def said(*texts: tuple[str, Source]) -> Provenance:
    """An index of these texts, told at 0, 1, 2 and so on."""
    index = Provenance()
    for seq, (text, source) in enumerate(texts):
        index.add(text, seq, source)
    return index


def test_trust_has_an_order() -> None:
    """The user vouches best, then the system prompt, tools, other agents, and a model not at all."""
    assert Source.USER > Source.SYSTEM > Source.TOOL > Source.AGENT > Source.MODEL
    assert set(SOURCE) == {"user", "system", "tool", "agent", "model"}


def test_the_first_mention_and_the_best_word_are_kept() -> None:
    """A word is known by who said it first and by the best of all who ever said it, in whatever order they came."""
    index = said(("A12", Source.MODEL), ("A12", Source.USER), ("A12", Source.TOOL))
    assert index.find("a12") == (0, Source.MODEL, Source.USER)
    assert index.trace("A12") == Trace("grounded", 0, Source.USER)


@pytest.mark.parametrize("source", [source for source in Source if source is not Source.MODEL])
def test_anybody_but_a_model_grounds(source: Source) -> None:
    """A value is grounded by a user, a system prompt, a tool or another agent."""
    assert said(("order A12", source)).trace("A12") == Trace("grounded", 0, source)


def test_what_only_a_model_said_is_the_models() -> None:
    """A value only a model ever said comes from the model, first at the event it said it in."""
    index = said(("hello", Source.USER), ("take A12", Source.MODEL), ("A12 again", Source.MODEL))
    assert index.trace("A12") == Trace("model", 1, Source.MODEL, ("a12",))


def test_the_models_word_is_named_by_its_own_event() -> None:
    """Of a value the user said in part, the event that is named is the one the made-up part came in with."""
    index = said(("zed9", Source.MODEL), ("alice", Source.USER))
    assert index.trace("alice/zed9") == Trace("model", 0, Source.MODEL, ("zed9",))


def test_what_nobody_said_is_from_nowhere() -> None:
    """A value with a word nobody said is from nowhere, and the words that are not grounded are listed."""
    index = said(("alice", Source.USER), ("bob", Source.MODEL))
    assert index.trace("alice carol bob") == Trace("nowhere", None, None, ("carol", "bob"))


def test_a_value_of_many_words_is_as_good_as_its_weakest() -> None:
    """A value is as well vouched for as the least of its words, and as old as the last of them to come up."""
    index = said(("Anna", Source.USER), ("Karenina", Source.AGENT), ("Arkadyevna", Source.TOOL))
    assert index.trace("anna arkadyevna KARENINA") == Trace("grounded", 2, Source.AGENT)


@pytest.mark.parametrize("value", ["", "  ", "()", "/ ,"])
def test_nothing_is_grounded(value: str) -> None:
    """A value without a word in it needs no source."""
    assert said(("x", Source.USER)).trace(value).origin == "grounded"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Order A12 please", "A12"),
        ("Order A12.", "A12"),
        ("Order A12. Thanks", "A12"),
        ("Order A12.\nThanks", "A12"),
        ("Order A12.\r\nThanks", "A12"),
        ("Order A12.\tThanks", "A12"),
        ("Order A12... is it there", "A12"),
        ("Order A12 - it is late", "A12"),
        ("Order A12-, B7", "A12"),
        ("(A12)", "A12"),
        ("#A12", "#A12"),
        ("#A12", "A12"),
        ("`A12`", "A12"),
        ("“A12”", "A12"),
        ("«A12»", "A12"),
        ("A12—now", "A12"),
        ("A12… now", "A12"),
        ("A12；B7", "A12"),
        ("€7.50!", "7.50"),
        ("{'id': 'A12'}", "A12"),
        ('{"id":"A12"}', "A12"),
        ("id=A12&x=1", "A12"),
        ("https://shop.example/orders/A12?x", "A12"),
        ("ping @john_42 now", "john_42"),
        ("ping john_42 now", "@john_42"),
        ("set _private_1", "_private_1"),
        ("--since=2024-05-01", "2024-05-01"),
        ("at -5 degrees", "-5"),
        ("mail john.doe@example.org.", "john.doe@example.org"),
        ("<john.doe@example.org>", "John.Doe@example.org"),
        ("7.0.1", "7.0.1"),
        ("CAFÉ-1", "café-1"),
        ("x\u200bA12", "A12"),
    ],
)
def test_what_stands_round_an_identifier_is_none_of_it(text: str, value: str) -> None:
    """A value is found whatever marks stand round it, in prose, in JSON and in addresses, in any case."""
    assert said((text, Source.USER)).trace(value).origin == "grounded"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("john.doe@example.org", "john@example.org"),
        ("john.doe@example.org", "example.org"),
        ("user_1234", "user_123"),
        ("user_123", "user_1234"),
        ("2024-05-01", "2024-05"),
        ("A-12", "A12"),
        ("12.50", "12"),
    ],
)
def test_what_glues_an_identifier_is_part_of_it(text: str, value: str) -> None:
    """A piece of an identifier, of an address, of a date or of a number is another value."""
    assert said((text, Source.USER)).trace(value).origin == "nowhere"


@given(st.text())
@examples(300)
def test_a_text_is_grounded_by_itself(text: str) -> None:
    """Whatever was said, saying it again is grounded: both sides take a text apart alike."""
    assert said((text, Source.USER)).trace(text).origin == "grounded"


@given(st.text(), st.text())
@examples(300)
def test_words_stand_in_a_sentence(before: str, after: str) -> None:
    """An identifier between any two texts is found, if there is a space round it."""
    assert said((f"{before} zq_77 {after}", Source.USER)).trace("zq_77").origin == "grounded"


# -- bounds -----------------------------------------------------------------------------------------------------------


def crowd(index: Provenance, count: int, start: int = 0) -> None:
    """Many different words that matter to nobody, three to an event."""
    for number in range(start, start + count, 3):
        index.add(f"w{number} w{number + 1} w{number + 2}", number, Source.TOOL)


def test_the_index_is_bounded() -> None:
    """However many different words were said, no more than the limit's two generations are kept."""
    index = Provenance(limit=100)
    crowd(index, 10_000)
    assert len(index) <= 2 * (100 + 3)


def test_what_is_still_indexed_is_known() -> None:
    """The words of the last events are known with their source however much went before."""
    index = Provenance(limit=100)
    crowd(index, 10_000)
    index.add("A12", 10_000, Source.USER)
    assert index.trace("A12") == Trace("grounded", 10_000, Source.USER)


def test_until_something_is_forgotten_what_is_not_known_was_never_said() -> None:
    """As long as everything said is indexed, a word that is not there is from nowhere."""
    index = Provenance(limit=100)
    crowd(index, 90)
    assert index.complete
    assert index.trace("A12").origin == "nowhere"


def test_what_was_forgotten_is_not_from_nowhere() -> None:
    """A word said so long ago that it is no longer indexed is forgotten, and that is no accusation."""
    index = Provenance(limit=100)
    index.add("order A12", 0, Source.USER)
    crowd(index, 1000)
    assert not index.complete
    assert index.trace("A12") == Trace("forgotten", None, None, ("a12",))


def test_a_voucher_that_was_forgotten_is_not_held_against_the_value() -> None:
    """What the user said long ago and the model goes on using is not the model's invention."""
    index = Provenance(limit=100)
    index.add("order A12", 0, Source.USER)
    for start in range(0, 1000, 50):
        crowd(index, 50, start)
        index.add("about A12", start, Source.MODEL)
    assert index.trace("A12").origin in ("grounded", "forgotten")


def test_a_word_said_again_is_not_forgotten() -> None:
    """A word that keeps being said stays known, and as well vouched for as when it was said last."""
    index = Provenance(limit=100)
    for start in range(0, 1000, 50):
        index.add("order A12", start, Source.TOOL)
        crowd(index, 50, start)
    assert index.trace("A12").origin == "grounded"


def test_of_a_huge_text_head_and_tail_are_indexed() -> None:
    """A text beyond the limit is read at both ends, and the index admits that it does not know all that was said."""
    index = Provenance(longest=1000)
    index.add(f"head1 {'x ' * 600} middle1 {'x ' * 600} tail1", 0, Source.TOOL)
    assert [index.trace(word).origin for word in ("head1", "tail1", "middle1")] == ["grounded", "grounded", "forgotten"]
    assert not index.complete


def test_no_word_arises_where_a_huge_text_is_cut() -> None:
    """The head and the tail of a huge text do not make a word together."""
    index = Provenance(longest=100)
    index.add("a" * 50 + " " * 100 + "b" * 50, 0, Source.TOOL)
    assert index.find("a" * 50 + "b" * 50) is None


def test_the_quick_answer_agrees_with_the_full_one() -> None:
    """Whatever the quick look-up vouches for, the full trace finds grounded."""
    index = said(("A12", Source.USER), ("B7", Source.MODEL), ("mail a@b.example", Source.TOOL))
    values = ["A12", "a12", "B7", "C3", "a@b.example", "A12 B7"]
    assert [index.vouched(value) for value in values] == [True, True, False, False, True, False]
    assert all(index.trace(value).origin == "grounded" for value in values if index.vouched(value))
