"""Our revisions over etcd's: one for each change, where etcd has one for each transaction.

etcd gives all keys of a transaction one revision. A watch that ends between two of them and resumes from the first's
would lose the second. So ours are etcd's with ten bits behind them, which say the place within the transaction: they
grow, no two changes share one, and a change alone in its transaction has place 0. What is true of a whole transaction,
such as the state that a list shows, is at the last place there can be.

etcd tells the place in the order of a watch's events, and nowhere in an answer to a read. So a value written at a place
other than 0 carries it in a trailer, which is taken off on reading: a protobuf field that no message of ours has, so
that other readers of protobuf values in etcd pass over it. See docs/adr/0011-revisions-over-etcd.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_BITS = 10
# So far are our revisions of two transactions apart, and so many changes may one transaction make.
SPACING = 1 << _BITS
_LAST_PLACE = SPACING - 1
# Field 2047 with six bytes: the place, and a mark that no value ends with by chance.
_HEAD = b"\xfa\x7f\x06"
_MARK = b"\xf4TPl"
_TRAILER_BYTES = len(_HEAD) + 2 + len(_MARK)


def of_change(etcd_revision: int, place: int = 0) -> int:
    """The revision of a change by its transaction's and its place there; those beyond the last share the last."""
    return etcd_revision << _BITS | min(place, _LAST_PLACE)


def of_state(etcd_revision: int) -> int:
    """The revision of the state after a whole transaction."""
    return etcd_revision << _BITS | _LAST_PLACE


def in_etcd(revision: int) -> int:
    """The transaction that a revision belongs to; 0, which is "now" to etcd, for 0 alone. etcd is empty at its 1."""
    return max(1, revision >> _BITS) if revision else 0


def is_whole(revision: int) -> bool:
    """Whether nothing of its transaction comes after a revision."""
    return revision & _LAST_PLACE == _LAST_PLACE


def first_after(revision: int) -> int:
    """The first transaction that may hold changes after a revision."""
    return max(1, revision >> _BITS) + is_whole(revision)


def sealed(value: bytes, place: int) -> bytes:
    """A value as it is stored. One that ends like a trailer gets one at place 0 too, so that reading gives it back."""
    if not place and not value.endswith(_MARK):
        return value
    return b"".join((value, _HEAD, place.to_bytes(2, "big"), _MARK))


def opened(stored: bytes) -> tuple[bytes, int]:
    """The value and its place."""
    if not stored.endswith(_MARK) or stored[-_TRAILER_BYTES : len(_HEAD) - _TRAILER_BYTES] != _HEAD:
        return stored, 0
    place = stored[len(_HEAD) - _TRAILER_BYTES : -len(_MARK)]
    return stored[:-_TRAILER_BYTES], int.from_bytes(place, "big")


def places(etcd_revisions: Iterable[int]) -> Iterator[int]:
    """The place of each event of a watch by its transaction, told in order and never cut within one."""
    last, place = 0, 0
    for revision in etcd_revisions:
        place = place + 1 if revision == last else 0
        last = revision
        yield place
