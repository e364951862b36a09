"""Kinds from dataclasses: their schema, their values, their definition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from tiphys_client.resource_facts import facts_of
from tiphys_sdk.operators.kinds import Custom, build, definition_of, schema_of


@dataclass(frozen=True, slots=True)
class Port:
    """A part of a spec."""

    number: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class ShopSpec:
    """One of everything."""

    title: str
    ports: list[Port] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    share: float = 0.5
    open: bool = True
    owner: str | None = None
    count: int = field(default=1, metadata={"minimum": 0})


class Shop(Custom[ShopSpec], group="example.com", version="v1beta1"):
    """A shop."""


class Country(Custom[Port], group="example.com", plural="countries", namespaced=False):
    """In no namespace."""


def test_B40_a_spec_is_read_with_defaults_and_without_what_is_unknown() -> None:
    spec = {"title": "t", "ports": [{"number": 80, "colour": "red"}], "share": 1, "more": 1}
    shop = Shop.FromString(Shop(content={"spec": spec}).SerializeToString())
    assert isinstance(shop, Shop)
    assert shop.spec == ShopSpec("t", [Port(80)], share=1.0)
    assert isinstance(shop.spec.share, float)
    assert shop.status == {}


def test_B40_the_schema_follows_the_types() -> None:
    schema = schema_of(ShopSpec)
    assert schema["required"] == ["title"]
    assert schema["properties"]["ports"]["items"]["required"] == ["number"]
    assert schema["properties"]["labels"] == {"type": "object", "additionalProperties": {"type": "string"}}
    assert schema["properties"]["share"] == {"type": "number", "default": 0.5}
    assert schema["properties"]["owner"] == {"type": "string", "nullable": True}
    assert schema["properties"]["count"] == {"type": "integer", "default": 1, "minimum": 0}


@pytest.mark.parametrize("what", [set, bytes, int | str], ids=["set", "bytes", "either"])
def test_B40_what_json_has_no_word_for_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="has no schema"):
        schema_of(what)


def test_B40_an_absent_value_is_none() -> None:
    assert build(str | None, None) is None
    assert build(tuple[int, ...], [1, 2]) == (1, 2)


def test_B40_a_kind_knows_its_place() -> None:
    facts = facts_of(Shop)
    assert (facts.api_version, facts.kind, facts.plural, facts.namespaced) == (
        "example.com/v1beta1",
        "Shop",
        "shops",
        True,
    )
    definition = definition_of(Country)
    assert definition["metadata"]["name"] == "countries.example.com"
    assert definition["spec"]["scope"] == "Cluster"
    assert definition["spec"]["versions"][0]["subresources"] == {"status": {}}


def test_B40_a_kind_without_a_group_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a group"):
        type("Lost", (Custom,), {})
