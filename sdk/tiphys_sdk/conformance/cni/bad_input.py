"""Steps that a plugin must refuse before it does anything, and the question for its versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tiphys_sdk.cni.spec import ErrorCode
from tiphys_sdk.conformance.bench import Bench, Failure
from tiphys_sdk.conformance.cni.chain import Chain, Link, refused, succeeded
from tiphys_sdk.conformance.cni.results import faults_of_versions

_VERSION = "1.0.0"
_ID = "cni-kit-bad"


async def versions_of(chain: Chain, link: Link, bench: Bench, prefix: str) -> set[str]:
    """The versions that the plugin says it speaks; none where it does not say."""
    found: Any = None
    async with bench.step(f"{prefix}VERSION", "VERSION lists the versions the plugin speaks (section 2, VERSION)"):
        done = await chain.call(link, "VERSION", stdin={"cniVersion": _VERSION})
        found = json.loads(succeeded("VERSION", link, done).stdout)
        faults = list(faults_of_versions(found))
        if faults:
            raise Failure("; ".join(faults))
    return set(found["supportedVersions"]) if bench.passed(f"{prefix}VERSION") else set()


async def bad_input(chain: Chain, link: Link, bench: Bench, prefix: str) -> None:
    """One step per fault; the codes are those of section 2, Error codes."""
    conf = chain.conf(link, _VERSION)
    good = {"container": _ID, "netns": "/run/netns/cni-kit-absent"}
    cases: tuple[tuple[str, str, ErrorCode, Mapping[str, Any]], ...] = (
        ("unknown verb", "FLY", ErrorCode.INVALID_ENVIRONMENT, {**good, "stdin": conf}),
        (
            "missing environment",
            "ADD",
            ErrorCode.INVALID_ENVIRONMENT,
            {**good, "stdin": conf, "leave_out": ("CNI_CONTAINERID", "CNI_IFNAME")},
        ),
        ("bad container id", "ADD", ErrorCode.INVALID_ENVIRONMENT, {**good, "container": "../x", "stdin": conf}),
        ("bad interface name", "ADD", ErrorCode.INVALID_ENVIRONMENT, {**good, "ifname": "a/b", "stdin": conf}),
        ("long interface name", "ADD", ErrorCode.INVALID_ENVIRONMENT, {**good, "ifname": "a" * 16, "stdin": conf}),
        ("bad standard input", "ADD", ErrorCode.DECODING_FAILURE, {**good, "stdin": b'{"cniVersion": '}),
        ("empty standard input", "ADD", ErrorCode.DECODING_FAILURE, {**good, "stdin": b""}),
        (
            "unknown version",
            "ADD",
            ErrorCode.INCOMPATIBLE_VERSION,
            {**good, "stdin": {**conf, "cniVersion": "99.0.0"}},
        ),
        ("bad network name", "ADD", ErrorCode.INVALID_CONFIG, {**good, "stdin": {**conf, "name": "a/b"}}),
    )
    for name, verb, code, call in cases:
        async with bench.step(f"{prefix}{name}", f"fails with code {code.value} and an error object"):
            refused(await chain.call(link, verb, **call), code)
