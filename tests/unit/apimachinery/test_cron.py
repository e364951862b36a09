"""Schedules of CronJobs, above all on the days on which clocks change."""

from __future__ import annotations

import datetime
import time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys_apimachinery.cron import UTC, CronError, Schedule, parse_cron, zone_named

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
LORD_HOWE, SAO_PAULO = ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/Sao_Paulo")


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


def after(text: str, moment: str, count: int = 1, zone: datetime.tzinfo = UTC) -> list[str]:
    """The next moments, in UTC, as text."""
    schedule, found = parse_cron(text, zone), at(moment)
    moments = []
    for _ in range(count):
        following = schedule.next_after(found)
        assert following is not None
        found = following
        moments.append(found.strftime("%Y-%m-%d %H:%M"))
    return moments


@pytest.mark.parametrize(
    ("text", "moment", "expected"),
    [
        pytest.param("* * * * *", "2026-01-01 00:00", ["2026-01-01 00:01", "2026-01-01 00:02"], id="each minute"),
        pytest.param("*/20 * * * *", "2026-01-01 00:30", ["2026-01-01 00:40", "2026-01-01 01:00"], id="a step"),
        pytest.param("5/20 3 * * *", "2026-01-01 03:05", ["2026-01-01 03:25", "2026-01-01 03:45"], id="from there on"),
        pytest.param("0 0 29 2 *", "2026-01-01 00:00", ["2028-02-29 00:00", "2032-02-29 00:00"], id="leap days"),
        pytest.param("0 12 * * mon-FRI", "2026-01-02 12:00", ["2026-01-05 12:00", "2026-01-06 12:00"], id="weekdays"),
        pytest.param("0 0 13 * 5", "2026-02-07 00:00", ["2026-02-13 00:00", "2026-02-20 00:00"], id="either day"),
        pytest.param("0 0 13 * *", "2026-02-14 00:00", ["2026-03-13 00:00", "2026-04-13 00:00"], id="a day of month"),
        pytest.param(
            "0 0 */2 * 1", "2026-02-07 00:00", ["2026-02-09 00:00", "2026-02-11 00:00"], id="a step is no star"
        ),
        pytest.param("0 0 ? jan 0", "2026-01-30 00:00", ["2027-01-03 00:00", "2027-01-10 00:00"], id="a question mark"),
        pytest.param("@hourly", "2026-01-01 00:59", ["2026-01-01 01:00", "2026-01-01 02:00"], id="hourly"),
        pytest.param("@weekly", "2026-01-01 00:00", ["2026-01-04 00:00", "2026-01-11 00:00"], id="weekly, on Sundays"),
        pytest.param("@yearly", "2026-01-01 00:00", ["2027-01-01 00:00", "2028-01-01 00:00"], id="yearly"),
        pytest.param("@every 1h30m", "2026-01-01 00:10", ["2026-01-01 01:40", "2026-01-01 03:10"], id="every"),
    ],
)
def test_B23_moments_of_a_schedule(text: str, moment: str, expected: list[str]) -> None:
    assert after(text, moment, len(expected)) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected exactly 5 fields, found 0"),
        ("* * * *", "expected exactly 5 fields, found 4"),
        ("* * * * * *", "expected exactly 5 fields, found 6"),
        ("60 * * * *", "end of range (60) above maximum (59)"),
        ("* * 0 * *", "beginning of range (0) below minimum (1)"),
        ("* * * * 7", "end of range (7) above maximum (6)"),
        ("5-3 * * * *", "beginning of range (5) beyond end of range (3)"),
        ("*/0 * * * *", "step of range should be a positive number"),
        ("*-5 * * * *", "failed to parse int from *"),
        ("1-2-3 * * * *", "too many hyphens"),
        ("1/2/3 * * * *", "too many slashes"),
        ("-1 * * * *", "failed to parse int from"),
        ("x * * * *", "failed to parse int from x"),
        ("٣ * * * *", "failed to parse int from"),
        ("1/ * * * *", "failed to parse int from"),
        (", * * * *", "names nothing"),
        ("@never", "unrecognized descriptor: @never"),
        ("@every soon", "failed to parse duration"),
        ("@every 5", "failed to parse duration"),
    ],
)
def test_B23_a_schedule_that_cannot_be_read_says_why(text: str, why: str) -> None:
    with pytest.raises(CronError) as caught:
        parse_cron(text)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "zone", "moment", "expected"),
    [
        pytest.param(
            "30 2 * * *",
            BERLIN,
            "2026-03-28 00:00",
            ["2026-03-28 01:30", "2026-03-30 00:30"],
            id="in the gap: not then",
        ),
        pytest.param(
            "0 3 * * *", BERLIN, "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 01:00"], id="the gap's end"
        ),
        pytest.param(
            "30 2 * * *",
            BERLIN,
            "2026-10-24 12:00",
            ["2026-10-25 00:30", "2026-10-25 01:30", "2026-10-26 01:30"],
            id="the hour that comes twice: twice",
        ),
        pytest.param(
            "0 * * * *",
            NEW_YORK,
            "2026-03-08 05:30",
            ["2026-03-08 06:00", "2026-03-08 07:00", "2026-03-08 08:00"],
            id="hours go on through the gap",
        ),
        pytest.param(
            "*/30 1 * * *",
            NEW_YORK,
            "2026-11-01 05:00",
            ["2026-11-01 05:30", "2026-11-01 06:00", "2026-11-01 06:30", "2026-11-02 06:00"],
            id="half hours of the hour that comes twice",
        ),
        pytest.param(
            "45 1 * * *",
            LORD_HOWE,
            "2026-04-04 12:00",
            ["2026-04-04 14:45", "2026-04-04 15:15"],
            id="half an hour back",
        ),
        pytest.param("0 0 * * *", SAO_PAULO, "2018-11-03 12:00", ["2018-11-05 02:00"], id="a day that has no midnight"),
        pytest.param(
            "0 9 * * *",
            ZoneInfo("Pacific/Apia"),
            "2011-12-29 00:00",
            ["2011-12-29 19:00", "2011-12-30 19:00"],
            id="a day that was left out",
        ),
    ],
)
def test_B23_clocks_that_change(text: str, zone: ZoneInfo, moment: str, expected: list[str]) -> None:
    assert after(text, moment, len(expected), zone) == expected


def _by_hand(text: str, zone: ZoneInfo, start: datetime.datetime, minutes: int) -> list[datetime.datetime]:
    """All moments of such a schedule of single numbers, by looking at every real minute."""
    minute, hour = (int(part) for part in text.split()[:2])
    moments = (start + datetime.timedelta(minutes=number) for number in range(1, minutes + 1))
    return [
        moment for moment in moments if (moment.astimezone(zone).hour, moment.astimezone(zone).minute) == (hour, minute)
    ]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 3),
    st.sampled_from([0, 15, 30, 45]),
    st.sampled_from([BERLIN, NEW_YORK, LORD_HOWE, SAO_PAULO]),
    st.sampled_from(["2026-03-07", "2026-03-28", "2026-04-04", "2026-10-03", "2026-10-24", "2026-10-31", "2018-11-03"]),
)
def test_B23_around_a_change_the_moments_are_those_of_the_clock(
    hour: int, minute: int, zone: ZoneInfo, day: str
) -> None:
    start, text = at(f"{day} 00:00"), f"{minute} {hour} * * *"
    expected = _by_hand(text, zone, start, 2 * 24 * 60)
    assert _moments(parse_cron(text, zone), start, len(expected)) == expected


def _moments(schedule: Schedule, start: datetime.datetime, count: int) -> list[datetime.datetime]:
    found = []
    for _ in range(count):
        following = schedule.next_after(start)
        assert following is not None
        found.append(start := following)
    return found


@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK, LORD_HOWE], ids=str)
def test_B23_ten_years_of_nights_lose_one_to_each_gap_and_gain_one_by_each_fold(zone: ZoneInfo) -> None:
    schedule = parse_cron(f"{15 if zone is LORD_HOWE else 30} 2 * * *", zone)
    doubled = parse_cron(f"{45 if zone is LORD_HOWE else 30} {1 if zone is not BERLIN else 2} * * *", zone)
    start, end = at("2026-01-01 12:00"), at("2036-01-01 12:00")
    began = time.process_time()
    nights, folds = _until(schedule, start, end), _until(doubled, start, end)
    assert time.process_time() - began < 1.0
    days = (end - start).days
    # Where gap and fold are the same local hour, the two cancel out.
    assert len(nights) == (days if zone is BERLIN else days - 10)
    assert len(folds) == (days if zone is BERLIN else days + 10)
    assert len({moment.astimezone(zone).date() for moment in nights}) == days - 10


def _until(schedule: Schedule, start: datetime.datetime, end: datetime.datetime) -> list[datetime.datetime]:
    found = []
    while (following := schedule.next_after(start)) is not None and following <= end:
        found.append(start := following)
    return found


def test_B23_a_day_that_never_comes_has_no_moment() -> None:
    assert parse_cron("0 0 31 2 *").next_after(at("2026-01-01 00:00")) is None


@pytest.mark.parametrize("name", ["", "Local", "local", "Mars/Olympus", "../etc/passwd", "Europe/\0Berlin"])
def test_B23_what_is_no_time_zone(name: str) -> None:
    assert zone_named(name) is None


def test_B23_time_zones_have_names() -> None:
    assert zone_named("Asia/Kolkata") == ZoneInfo("Asia/Kolkata")
