"""Which form an Accept or Content-Type header asks for."""

from __future__ import annotations

import pytest

from tiphys_apimachinery.errors import NotAcceptable, UnsupportedMediaType
from tiphys_apiserver.rest.negotiate import Format, Media, body_media, choose_format

KUBECTL = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
CASES = [
    pytest.param("", Format(), id="nothing said"),
    pytest.param("*/*", Format(), id="anything"),
    pytest.param("application/yaml", Format(Media.YAML), id="yaml"),
    pytest.param("application/vnd.kubernetes.protobuf, */*", Format(Media.PROTOBUF), id="first that fits"),
    pytest.param("text/html, application/json;q=0.5, application/yaml;q=0.9", Format(Media.YAML), id="by quality"),
    pytest.param(KUBECTL, Format(Media.JSON, "Table", "v1"), id="kubectl's table"),
    pytest.param(
        "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json",
        Format(),
        id="no table in protobuf",
    ),
    pytest.param(
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json",
        Format(aggregated="v2"),
        id="aggregated discovery",
    ),
    pytest.param(
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
        Format(),
        id="old aggregated discovery falls through",
    ),
]


@pytest.mark.parametrize(("accept", "wanted"), CASES)
def test_choose_format(accept: str, wanted: Format) -> None:
    assert choose_format(accept) == wanted


@pytest.mark.parametrize("accept", ["text/html", "application/json;as=Chart;g=meta.k8s.io;v=v1"])
def test_what_nobody_makes_is_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json"):
        choose_format(accept)


def test_table_is_refused_where_there_is_none() -> None:
    assert choose_format(KUBECTL, tables=False) == Format()


def test_bodies() -> None:
    assert body_media("") is Media.JSON
    assert body_media("application/json; charset=utf-8") is Media.JSON
    assert body_media("application/yaml") is Media.YAML
    with pytest.raises(UnsupportedMediaType):
        body_media("text/plain")
