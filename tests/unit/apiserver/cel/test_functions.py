"""Every function of expressions, in tables: an expression that must be true, or the words of its error."""

# ruff: noqa: E501  an example is one line

from __future__ import annotations

import re

import pytest

from tiphys_apimachinery.cel.program import Activation
from tiphys_apimachinery.cel.syntax import CelError
from tiphys_apiserver.cel.catalog import LIBRARY
from tiphys_apiserver.cel.expressions import compile_expression

VARIABLES = {
    "x": 3, "name": "web", "hosts": ["b", "a"], "labels": {"a": "1"}, "nothing": None, "deep": {"a": {"b": [1, 2]}},
}  # fmt: skip

TRUE = {
    "numbers": [
        "1 + 2 * 3 - 4 / 2 == 5 && 7 % 3 == 1 && -7 / 2 == -3 && -7 % 3 == -1",
        "1u + 2u == 3u && 1.5 * 2.0 == 3.0 && 1 == 1.0 && 1u == 1 && 2 > 1.5 && 1u < 2",
        "0x10 == 16 && 1e3 == 1000.0 && .5 == 0.5 && 9223372036854775807 > 0 && -9223372036854775808 < 0",
        "1.0 / 0.0 > 1e308 && !(0.0 / 0.0 == 0.0 / 0.0)",
        "true != 1 && 'a' != b'a' && null == nothing && [1, 2u] == [1.0, 2] && {'a': 1} == {'a': 1.0}",
        "(x > 2 ? 'many' : 'few') == 'many'",
    ],
    "texts and bytes": [
        r"""'a\tb' == "a\x09b" && r'\d' == '\\d' && '\u00e9' == 'é' && b'\x61' == bytes('a')""",
        "'a' + 'b' == 'ab' && b'a' + b'b' == b'ab' && 'a' < 'b' && size('é') == 1 && size(b'é') == 2",
        "'''a'b''' == \"a'b\" && 'abc'.contains('b') && 'abc'.startsWith('ab') && 'abc'.endsWith('bc')",
    ],
    "sizes": ["size('ab') == 2 && [1].size() == 1 && {'a': 1}.size() == 1 && size(b'ab') == 2"],
    "conversions": [
        "int('42') == 42 && int(2.9) == 2 && int(-2.9) == -2 && int(3u) == 3",
        "int(timestamp('1970-01-01T00:01:00Z')) == 60 && timestamp(60) == timestamp('1970-01-01T00:01:00Z')",
        "uint(3) == 3u && uint('7') == 7u && double('1.5') == 1.5 && double(1) == 1.0",
        "string(1) == '1' && string(1.0) == '1' && string(1e30) == '1e+30' && string(true) == 'true'",
        "string(b'a') == 'a' && bytes('a') == b'a' && bool('true') && !bool('0') && dyn(1) == 1",
        "string(duration('90m')) == '5400s' && string(timestamp('2026-01-01T00:00:00.5Z')) == '2026-01-01T00:00:00.5Z'",
        "type(1) == int && type(1u) == uint && type('') == string && type([]) == list && type({}) == map",
        "type(null) == null_type && type(int) == type && type(duration('1s')) == google.protobuf.Duration",
        "type(timestamp(0)) == google.protobuf.Timestamp && type(b'') == bytes && type(1.0) == double",
    ],
    "times": [
        "timestamp('2026-03-01T10:20:30.4Z').getFullYear() == 2026 && timestamp('2026-03-01T00:00:00Z').getMonth() == 2",
        "timestamp('2026-03-01T00:00:00Z').getDate() == 1 && timestamp('2026-03-01T00:00:00Z').getDayOfMonth() == 0",
        "timestamp('2026-03-01T00:00:00Z').getDayOfWeek() == 0 && timestamp('2026-03-01T00:00:00Z').getDayOfYear() == 59",
        "timestamp('2026-03-01T10:20:30.4Z').getHours() == 10 && timestamp('2026-03-01T10:20:30Z').getMinutes() == 20",
        "timestamp('2026-03-01T10:20:30.4Z').getSeconds() == 30 && timestamp('2026-03-01T10:20:30.4Z').getMilliseconds() == 400",
        "timestamp('2026-03-01T23:30:00Z').getHours('+02:00') == 1 && timestamp('2026-03-01T23:30:00Z').getDate('-01:00') == 1",
        "timestamp('2026-07-01T12:00:00Z').getHours('Europe/Paris') == 14",
        "duration('1h30m').getMinutes() == 90 && duration('1h').getHours() == 1 && duration('90s').getSeconds() == 90",
        "duration('1.5s').getMilliseconds() == 1500 && duration('-1h') < duration('0') && duration('1h') > duration('59m')",
        "timestamp('2026-01-01T00:00:00Z') + duration('24h') == timestamp('2026-01-02T00:00:00Z')",
        "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
        "timestamp('2026-01-02T00:00:00+02:00') < timestamp('2026-01-02T00:00:00Z')",
    ],
    "macros": [
        "hosts.all(h, h in ['a', 'b']) && hosts.exists(h, h == 'a') && hosts.exists_one(h, h == 'a')",
        "hosts.map(h, h + '!') == ['b!', 'a!'] && [1, 2, 3].map(n, n > 1, n * n) == [4, 9]",
        "[1, 2, 3].filter(n, n > 1) == [2, 3] && labels.all(k, labels[k] == '1') && labels.map(k, k) == ['a']",
        "[5, 6].all(i, v, v == i + 5) && labels.exists(k, v, k == 'a' && v == '1') && [5, 6].existsOne(i, v, v == 6)",
        "[1, 2].transformList(i, v, i * v) == [0, 2] && [1, 2, 3].transformList(i, v, i > 0, v) == [2, 3]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2} && {'a': 1, 'b': 2}.transformMap(k, v, v > 1, v) == {'b': 2}",
        "['x'].transformMapEntry(i, v, {v: i}) == {'x': 0}",
        "[{'n': 2}, {'n': 1}].sortBy(e, e.n)[0].n == 1",
        "cel.bind(a, x + 1, a * a) == 16 && has(deep.a) && !has(deep.c) && has(deep.a.b)",
        "[1, 2].exists(x, x == 2) && x == 3",
    ],
    "optionals": [
        "deep.?a.?b[?1].orValue(0) == 2 && deep.?z.?b[?1].orValue(0) == 0 && !deep.?z.hasValue()",
        "optional.of(1).hasValue() && optional.of(1).value() == 1 && !optional.none().hasValue()",
        "optional.none().or(optional.of(2)).value() == 2 && optional.ofNonZeroValue('').orValue('d') == 'd'",
        "optional.of(2).optMap(v, v * 2).value() == 4 && !optional.none().optMap(v, v * 2).hasValue()",
        "optional.of(2).optFlatMap(v, optional.of(v + 1)).value() == 3 && optional.ofNonZeroValue(1).hasValue()",
        "[?optional.of(1), ?optional.none(), 2] == [1, 2] && {?'a': optional.none(), 'b': 1} == {'b': 1}",
        "hosts[?9].orValue('z') == 'z' && labels[?'a'].orValue('') == '1' && optional.of(1) == optional.of(1)",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of(1)].unwrapOpt() == [1]",
        "type(optional.none()) == optional_type",
    ],
    "strings": [
        "'abc'.charAt(1) == 'b' && 'abc'.charAt(3) == '' && 'abcabc'.indexOf('c') == 2 && 'abcabc'.indexOf('c', 3) == 5",
        "'abcabc'.lastIndexOf('b') == 4 && 'abcabc'.lastIndexOf('b', 3) == 1 && 'ab'.indexOf('') == 0",
        "'ÀBc'.lowerAscii() == 'Àbc' && 'àbc'.upperAscii() == 'àBC'",
        "'aaa'.replace('a', 'b') == 'bbb' && 'aaa'.replace('a', 'b', 2) == 'bba'",
        "'a,b,c'.split(',') == ['a', 'b', 'c'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'abc'.split('', 2) == ['a', 'bc']",
        "'abc'.split(',', 0) == [] && ['x', 'y'].join() == 'xy' && ['x', 'y'].join('-') == 'x-y' && [].join('-') == ''",
        "'abc'.substring(1) == 'bc' && 'abc'.substring(0, 2) == 'ab' && ' \t x '.trim() == 'x' && 'abc'.reverse() == 'cba'",
        "strings.quote('a\\n') == '\"a\\\\n\"'",
        "'%s %d %s'.format(['a', 1, [true, null, 1.5]]) == 'a 1 [true, null, 1.5]' && '%%'.format([]) == '%'",
        "'%.2f|%e|%b|%o|%x|%X'.format([1.005, 1.0, 5, 8, 255, 'az']) == '1.00|1.000000e+00|101|10|ff|617A'",
        "base64.encode(b'hi') == 'aGk=' && base64.decode('aGk=') == b'hi' && base64.decode('aGk') == b'hi'",
    ],
    "regular expressions": [
        "'abc123'.matches('[0-9]+$') && matches('abc', '^a') && !'abc'.matches('^b')",
        "'abc 123'.find('[0-9]+') == '123' && 'abc'.find('[0-9]') == '' && 'a1b22'.findAll('[0-9]+') == ['1', '22']",
        "'a1b2'.findAll('[0-9]', 1) == ['1'] && 'a1b2'.findAll('[0-9]', 0) == []",
    ],
    "lists": [
        "[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && [].isSorted() && [1, 2].sum() == 3 && [].sum() == 0",
        "[1.5, 2.5].sum() == 4.0 && [3, 1].max() == 3 && ['b', 'a'].min() == 'a' && [duration('1s')].sum() == duration('1s')",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(9) == -1",
        "[1, 2, 3].slice(1, 3) == [2, 3] && [1, 2, 1].distinct() == [1, 2] && [[1], [[2]]].flatten() == [1, [2]]",
        "[[1], [[2]]].flatten(2) == [1, 2] && [1, 2].reverse() == [2, 1] && [3, 1, 2].sort() == [1, 2, 3]",
        "[1, 2].first().value() == 1 && [].first().orValue(7) == 7 && [1, 2].last().value() == 2",
        "lists.range(3) == [0, 1, 2] && [1] + [2] == [1, 2] && 2 in [1, 2] && !('c' in {'a': 1}) && !(true in [1])",
    ],
    "sets": [
        "sets.contains([1, 2, 3], [2, 3]) && !sets.contains([1], [2]) && sets.contains([], [])",
        "sets.equivalent([1, 1, 2], [2, 1]) && !sets.equivalent([1], [1, 2]) && sets.intersects([1, 2], [2, 3])",
    ],
    "math": [
        "math.greatest(1, 2.5) == 2.5 && math.greatest([1, 3]) == 3 && math.least(1, 2, -3) == -3 && math.least(4) == 4",
        "math.ceil(1.2) == 2.0 && math.floor(-1.2) == -2.0 && math.round(2.5) == 3.0 && math.round(-2.5) == -3.0",
        "math.trunc(-1.9) == -1.0 && math.abs(-3) == 3 && math.abs(-1.5) == 1.5 && math.abs(2u) == 2u && math.sign(-5) == -1",
        "math.sqrt(16) == 4.0 && math.isNaN(0.0 / 0.0) && math.isInf(1.0 / 0.0) && math.isFinite(1.0)",
        "math.bitAnd(6, 3) == 2 && math.bitOr(6u, 3u) == 7u && math.bitXor(6, 3) == 5 && math.bitNot(0) == -1",
        "math.bitNot(0u) == 18446744073709551615u && math.bitShiftLeft(1, 4) == 16 && math.bitShiftRight(-8, 1) > 0",
        "math.bitShiftLeft(1u, 64) == 0u && math.sign(0u) == 0u",
    ],
    "quantities": [
        "quantity('1Gi').isGreaterThan(quantity('500Mi')) && quantity('1').isLessThan(quantity('1.5'))",
        "quantity('1').add(quantity('500m')).compareTo(quantity('1500m')) == 0 && quantity('1').add(1) == quantity('2')",
        "quantity('2').sub(1) == quantity('1') && quantity('2').sub(quantity('500m')) == quantity('1500m')",
        "quantity('50k').asInteger() == 50000 && quantity('1').isInteger() && !quantity('1m').isInteger()",
        "quantity('500m').asApproximateFloat() == 0.5 && quantity('-1').sign() == -1 && isQuantity('1Ki') && !isQuantity('x')",
    ],
    "addresses": [
        "ip('127.0.0.1').isLoopback() && ip('::1').family() == 6 && isIP('1.2.3.4') && !isIP('1.2.3') && !isIP('fe80::1%a')",
        "ip('0.0.0.0').isUnspecified() && ip('224.0.0.1').isLinkLocalMulticast() && ip('169.254.1.1').isLinkLocalUnicast()",
        "ip('10.0.0.1').isGlobalUnicast() && !ip('255.255.255.255').isGlobalUnicast() && !isIP('::ffff:1.2.3.4')",
        "ip.isCanonical('127.0.0.1') && !ip.isCanonical('2001:DB8::1') && string(ip('::1')) == '::1'",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsIP(ip('11.0.0.1'))",
        "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !cidr('10.0.0.0/8').containsCIDR(cidr('0.0.0.0/0'))",
        "cidr('10.1.2.3/8').prefixLength() == 8 && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
        "cidr('10.1.2.3/8').ip() == ip('10.1.2.3') && string(cidr('10.0.0.0/8')) == '10.0.0.0/8' && isCIDR('::/0')",
        "!isCIDR('10.0.0.0') && !isCIDR('10.0.0.0/255.0.0.0') && type(ip('::1')) != type(cidr('::/0'))",
    ],
    "URLs": [
        "url('https://u@example.com:8080/p%20a?x=1&x=2').getHost() == 'example.com:8080'",
        "url('https://example.com:8080/').getPort() == '8080' && url('https://[::1]:80/').getHostname() == '::1'",
        "url('https://example.com/a%20b?x=1').getEscapedPath() == '/a%20b' && url('/a').getScheme() == ''",
        "url('https://a/?x=1&x=2').getQuery()['x'] == ['1', '2'] && isURL('https://a') && !isURL('a b') && !isURL('../a')",
    ],
    "formats of names": [
        "!format.dns1123Label().validate('good').hasValue() && format.dns1123Label().validate('Not_Good').hasValue()",
        "format.dns1123Subdomain().validate('a..b').value().size() > 0 && !format.dns1035Label().validate('a1').hasValue()",
        "format.qualifiedName().validate('a/b/c').hasValue() && format.labelValue().validate('a b').hasValue()",
        "!format.dns1123LabelPrefix().validate('a-').hasValue() && !format.dns1123SubdomainPrefix().validate('a.b-').hasValue()",
        "!format.dns1035LabelPrefix().validate('a-').hasValue() && format.uri().validate('a b').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue() && format.byte().validate('!').hasValue()",
        "format.date().validate('2026-13-01').hasValue() && !format.datetime().validate('2026-01-01T00:00:00Z').hasValue()",
        "format.named('uuid').hasValue() && !format.named('none').hasValue()",
    ],
    "semantic versions": [
        "semver('1.2.3').isGreaterThan(semver('1.2.3-rc.1')) && semver('1.2.3').isLessThan(semver('1.10.0'))",
        "semver('1.0.0-alpha.1').compareTo(semver('1.0.0-alpha.beta')) == -1 && semver('1.2.3+b').compareTo(semver('1.2.3')) == 0",
        "semver('1.2.3').major() == 1 && semver('1.2.3').minor() == 2 && semver('1.2.3').patch() == 3",
        "isSemver('1.2.3') && !isSemver('v1.2') && isSemver('v1.2', true) && semver('v1.2', true) == semver('1.2.0')",
    ],
    "patches": ["jsonpatch.escapeKey('a/b~c') == 'a~1b~0c'"],
    "names with dashes": ["{'a-b': 1}.`a-b` == 1 && {'namespace': 1}.namespace == 1"],
}

WRONG = [
    ("9223372036854775807 + 1", "integer overflow"),
    ("-9223372036854775808 - 1", "integer overflow"),
    ("-(-9223372036854775808)", "integer overflow"),
    ("0u - 1u", "unsigned integer overflow"),
    ("1 % 0", "modulus by zero"),
    ("1 + 1.0", "no such overload: _+_(int, double)"),
    ("1 < 'a'", "no such overload"),
    ("true < 1", "no such overload"),
    ("!1", "no such overload"),
    ("hosts[5]", "index out of bounds: 5"),
    ("hosts['a']", "no such overload"),
    ("labels['z']", "no such key: z"),
    ("labels.z", "no such key: z"),
    ("x.y", "no such overload"),
    ("nothing.a", "no such key: a"),
    ("int('a')", "type conversion error"),
    ("int(1e30)", "integer overflow"),
    ("bool('maybe')", "type conversion error"),
    ("string(b'\\xff')", "invalid UTF-8"),
    ("timestamp('yesterday')", "invalid timestamp"),
    ("duration('1 hour')", "invalid duration"),
    ("timestamp(0).getHours('Mars/Base')", "unknown time zone"),
    ("'abc'.substring(2, 1)", "invalid substring range"),
    ("'abc'.charAt(9)", "index out of range: 9"),
    ("'abc'.matches('(')", "error parsing regexp"),
    ("'%d'.format(['a'])", "%d does not take string"),
    ("'%s'.format([])", "index 0 out of range"),
    ("'%'.format([])", "could not parse formatting clause"),
    ("[1, 'a'].isSorted()", "no such overload"),
    ("[].max()", "max called on empty list"),
    ("[1].slice(0, 2)", "list is length 1"),
    ("['a', 1].join()", "no such overload"),
    ("lists.range(99999999)", "cost"),
    ("math.greatest('a')", "no such overload"),
    ("math.bitShiftLeft(1, -1)", "negative offset"),
    ("optional.none().value()", "optional.none() dereference"),
    ("{'a': 1, 'a': 2}", "repeated key"),
    ("[1].map(n, n + 'a')", "no such overload"),
    ("1.all(n, true)", "no such overload"),
    ("quantity('x')", "quantit"),
    ("quantity('1m').asInteger()", "cannot convert value to integer"),
    ("ip('1.2.3')", "parse error"),
    ("cidr('1.2.3.4')", "parse error"),
    ("url('a b')", "URL parse error"),
    ("semver('1')", "Invalid character"),
    ("base64.decode('%')", "illegal base64"),
]


def value(expression: str) -> object:
    return compile_expression(expression, frozenset(VARIABLES)).evaluate(Activation(VARIABLES))


@pytest.mark.parametrize(
    "expression",
    [pytest.param(text, id=f"{about} {at}") for about, texts in TRUE.items() for at, text in enumerate(texts)],
)
def test_A38_functions(expression: str) -> None:
    assert value(expression) is True


@pytest.mark.parametrize(("expression", "words"), WRONG, ids=[expression for expression, _ in WRONG])
def test_A38_functions_refuse_what_they_do_not_take(expression: str, words: str) -> None:
    with pytest.raises(CelError, match=re.escape(words)):
        value(expression)


def test_A38_every_function_has_an_example() -> None:
    examples = " ".join([text for texts in TRUE.values() for text in texts])
    asked_elsewhere = {
        "path", "group", "serviceAccount", "resource", "subresource", "namespace", "check", "allowed", "reason",
        "errored", "error", "fieldSelector", "labelSelector", "name",
    }  # fmt: skip
    names = [*LIBRARY.functions, *(name for name in LIBRARY.methods if name not in asked_elsewhere)]
    assert [name for name in names if f"{name}(" not in examples] == []
