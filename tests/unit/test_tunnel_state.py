"""The life of a tunnel: whatever happens in whatever order, what has ended stays ended."""

from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.tunnels.state import Close, LinkLost, ListenFailed, Listening, TunnelEvent, TunnelLife, after

EVENTS = st.lists(st.sampled_from([Listening(), ListenFailed("why"), LinkLost(), Close()]))


def test_the_usual_life() -> None:
    life = after(TunnelLife(), Listening())
    assert life == TunnelLife("active")
    assert after(life, LinkLost()) == TunnelLife("failed", "the connection to the machine is lost")
    assert after(TunnelLife(), ListenFailed("taken")) == TunnelLife("failed", "taken")
    assert after(life, Close()) == TunnelLife("closed")


@given(EVENTS, EVENTS)
def test_an_end_is_final(before: list[TunnelEvent], later: list[TunnelEvent]) -> None:
    life = TunnelLife()
    for event in before:
        life = after(life, event)
    ended = life.state in {"failed", "closed"}
    for event in later:
        life = after(life, event)
    assert not ended or life.state in {"failed", "closed"}
    assert not any(isinstance(event, Close) for event in [*before, *later]) or life.state == "closed"
