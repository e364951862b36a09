"""Generated names fit, vary and stay valid."""

from __future__ import annotations

import random

from tiphys_apimachinery import names, validation


def test_A25_generated_name_is_prefix_and_five_safe_characters() -> None:
    name = names.generate_name("web-", random.Random(1))
    assert name.startswith("web-")
    assert len(name) == 9
    assert set(name[4:]) <= set("bcdfghjklmnpqrstvwxz2456789")


def test_A25_long_prefix_is_cut_to_fit() -> None:
    assert len(names.generate_name("a" * 100, random.Random(1))) == 63


def test_prefix_may_end_with_a_hyphen() -> None:
    assert names.check_generate_name("web-", validation.is_dns1123_label) == []
    assert names.check_generate_name("Web-", validation.is_dns1123_label) != []
