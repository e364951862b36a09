"""Levels share, lend and borrow seats, and queues let flows have their turns."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest

from tiphys_apiserver.server.flow_control.seats import Level, LevelSettings, Pool, QueueFull, Waiter, deal

QUEUES: dict[str, Any] = {"queues": 8, "hand_size": 2, "queue_length": 3}


def levels(total: int, *settings: LevelSettings) -> tuple[Pool, list[Level]]:
    pool = Pool()
    made = [Level(one, pool) for one in settings]
    pool.share_out(zip(made, settings, strict=True), (), total)
    return pool, made


def one_level(total: int, **settings: Any) -> tuple[Pool, Level]:
    pool, made = levels(total, LevelSettings(name="only", shares=10, **settings))
    return pool, made[0]


def taken(level: Level, width: int = 1) -> int:
    """How many requests of a width get in."""
    count = 0
    while level.try_take(width):
        count += 1
    return count


def test_A49_seats_are_shared_out_by_shares_rounded_up() -> None:
    _, made = levels(
        600, *(LevelSettings(name=str(shares), shares=shares) for shares in (30, 40, 10, 40, 100, 20, 5, 0))
    )
    assert [level.nominal for level in made] == [74, 98, 25, 98, 245, 49, 13, 0]


def test_A49_level_borrows_what_another_lends_and_no_more() -> None:
    _, (lender, borrower) = levels(
        20, LevelSettings(name="lender", shares=10, lendable_percent=40), LevelSettings(name="borrower", shares=10)
    )
    assert (taken(borrower), taken(lender)) == (14, 6)


def test_A49_borrowing_stops_at_its_limit() -> None:
    _, (_, borrower) = levels(
        20,
        LevelSettings(name="lender", shares=10, lendable_percent=100),
        LevelSettings(name="borrower", shares=10, most_percent=20),
    )
    assert taken(borrower) == 12


def test_A49_exempt_level_never_waits() -> None:
    _, (exempt, _) = levels(2, LevelSettings(name="exempt", exempt=True), LevelSettings(name="other", shares=1))
    assert all(exempt.try_take(10) for _ in range(1000))


async def test_A49_seat_that_is_given_back_goes_to_whoever_waits() -> None:
    _, level = one_level(1, **QUEUES)
    assert level.try_take(1)
    waiter = level.enqueue("a", 1)
    assert not level.try_take(1)
    level.release(1)
    assert waiter.admitted.done()
    assert (level.seats, level.waiting) == (1, 0)


async def test_A49_borrowed_seat_that_is_given_back_goes_to_its_owner() -> None:
    _, (lender, borrower) = levels(
        2,
        LevelSettings(name="lender", shares=1, lendable_percent=100, **QUEUES),
        LevelSettings(name="borrower", shares=1),
    )
    assert taken(borrower) == 2
    waiter = lender.enqueue("a", 1)
    borrower.release(1)
    assert waiter.admitted.done()


async def test_A49_flood_of_one_flow_does_not_hold_up_another() -> None:
    _, level = one_level(1, queues=64, hand_size=1, queue_length=50)
    assert level.try_take(1)
    flood = [level.enqueue("flood", 1) for _ in range(50)]
    quiet = level.enqueue("quiet", 1)
    for _ in range(2):
        level.release(1)
    assert quiet.admitted.done()
    assert sum(waiter.admitted.done() for waiter in flood) == 1


@pytest.mark.parametrize("queues", [pytest.param(0, id="no queues"), pytest.param(1, id="full")])
async def test_A49_what_can_not_wait_is_refused(queues: int) -> None:
    _, level = one_level(1, queues=queues, hand_size=1, queue_length=2)
    for _ in range(2 * queues):
        level.enqueue("a", 1)
    with pytest.raises(QueueFull):
        level.enqueue("a", 1)


async def test_A49_request_wider_than_the_level_gets_all_of_it() -> None:
    _, level = one_level(4, **QUEUES)
    waiter = level.enqueue("a", 10)
    level.admit_waiting()
    assert waiter.admitted.done()
    assert level.seats == 4


async def test_A49_request_that_gave_up_is_passed_over() -> None:
    _, level = one_level(1, queues=1, hand_size=1, queue_length=5)
    assert level.try_take(1)
    first, second, third = (level.enqueue("a", 1) for _ in range(3))
    first.admitted.cancel()
    level.withdraw(second)
    level.release(1)
    level.withdraw(first)
    assert third.admitted.done()
    assert (level.waiting, level.seats) == (0, 1)


async def test_A49_seat_given_to_a_request_that_gives_up_is_free_again() -> None:
    _, level = one_level(1, **QUEUES)
    assert level.try_take(1)
    waiter = level.enqueue("a", 1)
    level.release(1)
    level.withdraw(waiter)
    assert level.seats == 0


async def test_A49_new_settings_keep_who_works_and_who_waits() -> None:
    pool, level = one_level(4, **QUEUES)
    assert taken(level) == 4
    waiter = level.enqueue("a", 1)
    pool.share_out([(level, LevelSettings(name="only", shares=1, queues=2, hand_size=1, queue_length=1))], (), 5)
    pool.admit_waiting()
    assert waiter.admitted.done()
    assert (level.seats, pool.free) == (5, 0)


@pytest.mark.parametrize("seed", range(5))
async def test_A49_whatever_happens_no_seat_is_lost_or_made(seed: int) -> None:
    """A random run: never more seats than there are, and all of them back at the end."""
    rng = random.Random(seed)
    pool, made = levels(
        20,
        LevelSettings(name="a", shares=10, lendable_percent=50, **QUEUES),
        LevelSettings(name="b", shares=5, lendable_percent=20, most_percent=100, **QUEUES),
        LevelSettings(name="c", shares=5, queues=1, hand_size=1, queue_length=50),
    )
    whole = pool.free
    working: list[tuple[Level, int]] = []
    waiting: list[tuple[Level, Waiter]] = []
    for _ in range(2000):
        level, width = rng.choice(made), rng.choice((1, 1, 1, 3))
        if rng.random() < 0.5:
            if level.try_take(width):
                working.append((level, width))
            else:
                with suppress(QueueFull):
                    waiting.append((level, level.enqueue(str(rng.random()), width)))
        elif working:
            ended, its = working.pop(rng.randrange(len(working)))
            ended.release(its)
        if waiting and rng.random() < 0.1:
            left, waiter = waiting.pop(rng.randrange(len(waiting)))
            left.withdraw(waiter)
        working += [(level, waiter.width) for level, waiter in waiting if waiter.admitted.done()]
        waiting = [(level, waiter) for level, waiter in waiting if not waiter.admitted.done()]
        assert sum(level.seats for level in made) <= sum(level.nominal for level in made)
        assert pool.free >= 0
    while working or waiting:
        for level, width in working:
            level.release(width)
        working = [(level, waiter.width) for level, waiter in waiting if waiter.admitted.done()]
        waiting = [(level, waiter) for level, waiter in waiting if not waiter.admitted.done()]
    assert [level.seats + level.requests + level.waiting for level in made] == [0, 0, 0]
    assert (pool.free, pool.waiting) == (whole, {})


def test_A49_flow_is_dealt_different_queues_and_always_the_same() -> None:
    for number in range(100):
        hand = deal(f"flow {number}", 16, 6)
        assert hand == deal(f"flow {number}", 16, 6)
        assert len(set(hand)) == 6
        assert set(hand) <= set(range(16))
    assert len({tuple(sorted(deal(f"flow {number}", 64, 6))) for number in range(100)}) == 100
