"""Quantities are exact and canonical."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys_apimachinery.quantity import Format, Quantity, QuantityError, bytes_value, canonical, cpu_millis


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", "0"),
        ("0Gi", "0"),
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("1000m", "1"),
        ("1024Ki", "1Mi"),
        ("1.1Ki", "1126400m"),
        ("512Ki", "512Ki"),
        ("0.5Ki", "512"),
        ("1024", "1024"),
        ("+5", "5"),
        ("-1.5Gi", "-1536Mi"),
        ("1e3", "1e3"),
        ("1500e0", "1500"),
        ("1E6", "1e6"),
        ("12E", "12E"),
        (".5", "500m"),
        ("5.", "5"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("100000k", "100M"),
        ("9000000Ti", "9223372036854775807"),
        ("1e-3", "1e-3"),
        ("0.000001", "1u"),
    ],
)
def test_canonical_text(text: str, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["", "x", "1.5.5", "1KiB", "Gi", "1 Gi", "--1", "1e", "1ki", "1e999999999", "١"])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(QuantityError):
        Quantity.parse(text)


def test_values_round_away_from_zero() -> None:
    assert cpu_millis("100.1m") == 101
    assert cpu_millis("2") == 2000
    assert bytes_value("1.1") == 2
    assert Quantity.parse("-1.1").value() == -2


def test_sum_keeps_the_family_of_the_left_side() -> None:
    assert str(Quantity.parse("1Gi") + Quantity.parse("1M")) == "1074741824"
    assert str(Quantity(0) + Quantity.parse("1Gi")) == "1Gi"
    assert str(Quantity.parse("1") - Quantity.parse("100m")) == "900m"


def test_order_ignores_the_family() -> None:
    assert Quantity.parse("1Ki") == Quantity.parse("1024")
    assert Quantity.parse("1Ki") > Quantity.parse("1k")
    assert len({Quantity.parse("1Ki"), Quantity.parse("1024")}) == 1


@given(st.integers(-(10**24), 10**24), st.sampled_from(list(Format)))
def test_canonical_text_loses_nothing(nanos: int, form: Format) -> None:
    quantity = Quantity(nanos, form)
    if form is Format.BINARY and abs(nanos) > (2**63 - 1) * 10**9:
        return
    text = str(quantity)
    assert Quantity.parse(text).nanos == nanos
    assert Quantity.parse(canonical(text)).nanos == nanos
    # Binary amounts without a suffix, as 125000, read back as decimal ones: 125k.
    assert canonical(text) == text or (form is Format.BINARY and not text.endswith("i"))
