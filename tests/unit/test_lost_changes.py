"""What a client wrote to a cache and memory never got: the node counts it, so that its log can say so."""

from __future__ import annotations

from tests.unit.several_nodes import SeveralNodes

OK = b"+OK\r\n"


def test_a_node_that_was_cut_off_for_longer_than_its_lease_says_how_much_it_lost() -> None:
    nodes = SeveralNodes()
    owner, other = nodes.followers
    cache = nodes.members[owner].node.cache
    nodes.ask(owner, "CACHE.SET kept 1")
    nodes.until(lambda: not cache.dirty)
    nodes.ask(owner, "CACHE.GET under_way")
    nodes.ask(owner, "CACHE.GET dirty")
    nodes.cut.add(owner)
    assert nodes.send(nodes.connect(owner), "CACHE.SET under_way 1") == OK
    assert nodes.send(nodes.connect(owner), "CACHE.FLUSH") == b""
    assert nodes.send(nodes.connect(owner), "CACHE.SET dirty 1") == OK
    client = nodes.connect(other)
    assert nodes.send(client, "MGET kept under_way dirty") == b"", "the owner's lease is waited for"
    answer = b""

    def is_answered() -> bool:
        nonlocal answer
        answer += nodes.received(client)
        return bool(answer)

    nodes.until(is_answered)
    assert answer == b"*3\r\n$1\r\n1\r\n$-1\r\n$-1\r\n"
    assert not cache.lost, "it has not heard yet"
    nodes.cut.clear()
    nodes.until(lambda: cache.lost)
    assert cache.lost == {0: 2}
