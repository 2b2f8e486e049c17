"""Pollers: the same laws for epoll and for what stands in for it elsewhere."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from resp_server.edge.poller import BROKEN, GONE, READ, WRITE, Poller, SelectorPoller, new_poller


@pytest.fixture(params=[new_poller, SelectorPoller])
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Poller = request.param()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_a_socket_is_ready_for_what_is_asked(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    fd = near.fileno()
    poller.watch(fd, READ)
    assert poller.poll(0) == []
    far.send(b"x")
    assert poller.poll(0) == [(fd, READ)]
    poller.change(fd, READ | WRITE)
    assert poller.poll(0) == [(fd, READ | WRITE)]
    poller.change(fd, WRITE)
    assert poller.poll(0) == [(fd, WRITE)]
    poller.change(fd, 0)
    assert poller.poll(0) == []
    poller.change(fd, READ)
    assert poller.poll(0) == [(fd, READ)]
    poller.forget(fd)
    assert poller.poll(0) == []


def test_the_other_side_closing_is_noticed(poller: Poller, pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    poller.watch(near.fileno(), READ)
    far.close()
    ((fd, event),) = poller.poll(1)
    assert fd == near.fileno()
    assert event & READ
    assert near.recv(1) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="only epoll tells of it while nothing is asked for")
def test_who_sends_no_more_is_told_from_who_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    poller = new_poller()
    poller.watch(near.fileno(), 0)
    far.shutdown(socket.SHUT_WR)
    ((_, event),) = poller.poll(1)
    assert event & GONE
    assert not event & BROKEN
    far.close()
    ((_, event),) = poller.poll(1)
    assert event & BROKEN
    poller.close()
