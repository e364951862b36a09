"""Format checkers accept and refuse as Kubernetes does, with its words."""

from __future__ import annotations

import pytest

from tiphys_apimachinery import formats


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("dns1123Label", ["a", "a-1", "1a", "a" * 63], ["", "A", "a.b", "-a", "a-", "a" * 64, "a\n"]),
        ("dns1123Subdomain", ["a", "a.b", "1.2"], ["", "a..b", "a_b", "a.", "a" * 254]),
        ("dns1035Label", ["a", "a1"], ["1a", "a.b", ""]),
        ("qualifiedName", ["a", "A_b.c", "x.io/y"], ["", "/y", "x.io/", "a/b/c", "X.io/y", "a" * 64]),
        ("labelValue", ["", "a", "A_b.c-1"], ["-a", "a b", "a" * 64]),
        ("port", ["1", "65535"], ["0", "65536", "x"]),
        ("portName", ["http", "a-1"], ["", "HTTP", "1", "a--b", "-a", "a" * 16]),
        ("ip", ["10.0.0.1", "::1"], ["", "10.0.0", "fe80::1%eth0", "010.0.0.1"]),
        ("cidr", ["10.0.0.0/8", "10.0.0.1/8", "::/0"], ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/255.0.0.0"]),
        ("percent", ["25%"], ["25", "-1%", "1.5%"]),
        ("configMapKey", ["a.b_c-D"], ["", "a/b", ".", "..", "..a"]),
        ("cIdentifierEnv", ["PATH", "a b", "x-y"], ["", "A=B", "ä"]),
        ("imageRef", ["busybox"], ["", " busybox"]),
        ("pathSegment", ["system:node"], [".", "..", "a/b", "a%b"]),
        ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["x"]),
        ("url", ["https://x/y"], ["x"]),
        ("absolutePath", ["/a"], ["a", ""]),
        ("wildcardDns1123Subdomain", ["*.a.b"], ["a.b", "*.", "*.*.a"]),
    ],
)
def test_checker_tells_good_from_bad(name: str, good: list[str], bad: list[str]) -> None:
    check = formats.checker(name)
    assert [value for value in good if check(value)] == []
    assert [value for value in bad if not check(value)] == []


def test_message_names_rule_and_examples() -> None:
    assert formats.is_dns1123_label("A") == [
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    ]


def test_unknown_format_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        formats.checker("nonsense")
