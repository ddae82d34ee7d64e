from benchmarks.stream.latency import Mapped, Sent, freshness
from benchmarks.stream.topics import Place

A0, A1, A2, B3 = (Place(0, offset) for offset in range(4))
SENT = {A0: Sent("a", 100), A1: Sent("a", 200), A2: Sent("a", 300), B3: Sent("b", 310)}


def test_a_mapping_is_as_old_as_the_events_it_is_the_first_to_reflect() -> None:
    newest, oldest = freshness(SENT, [Mapped("a", A1, 250), Mapped("a", A2, 390)], since_ms=0)
    assert newest == [250 - 200, 390 - 300]
    assert oldest == [250 - 100, 390 - 300]


def test_streams_do_not_mix() -> None:
    _, oldest = freshness(SENT, [Mapped("b", B3, 350), Mapped("a", A2, 400)], since_ms=0)
    assert oldest == [350 - 310, 400 - 100]


def test_a_mapping_that_reflects_nothing_new_has_no_latency() -> None:
    again = [Mapped("a", A2, 400), Mapped("a", A2, 900)]
    assert freshness(SENT, again, since_ms=0)[0] == [100]


def test_mappings_of_the_phase_before_are_passed_over() -> None:
    later = {place: sent for place, sent in SENT.items() if place.offset >= 2}
    _newest, oldest = freshness(later, [Mapped("a", A1, 250), Mapped("a", A2, 390)], since_ms=0)
    assert oldest == [90]


def test_events_sent_while_the_phase_settles_do_not_count() -> None:
    newest, _oldest = freshness(SENT, [Mapped("a", A1, 250), Mapped("a", A2, 390)], since_ms=201)
    assert newest == [90]
