"""Specs that were found right: what counts as the same, and that nothing wrong gets in."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.apiserver.registry.bench import context, made, strategy_of
from tiphys.api.core.v1.pod_pb2 import Pod
from tiphys_apiserver.registry.core.approved_specs import ApprovedSpecs, spec_digest

_TOKEN = "kube-api-access-{}"


def pod(token: str = "abcde", *, volume: str = "data", image: str = "busybox") -> Any:
    """A pod with a volume of its own and, last, the token's."""
    name = _TOKEN.format(token)
    mounts = f"volumeMounts: [{{name: {volume}, mountPath: /data}}, {{name: {name}, mountPath: /token}}]"
    volumes = f"volumes: [{{name: {volume}, emptyDir: {{}}}}, {{name: {name}, emptyDir: {{}}}}]"
    return made(
        Pod, f"{{metadata: {{name: p}}, spec: {{containers: [{{name: c, image: {image}, {mounts}}}], {volumes}}}}}"
    )


def test_pods_of_one_owner_are_the_same() -> None:
    assert spec_digest(pod("abcde").spec) == spec_digest(pod("x2y4z").spec) != b""


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(pod(image="nginx"), id="another image"),
        pytest.param(pod(volume="other"), id="another volume"),
        pytest.param(pod("abcdef"), id="a longer name"),
        pytest.param(pod("ABCDE"), id="a name that admission never makes"),
    ],
)
def test_other_specs_differ(other: Any) -> None:
    assert spec_digest(other.spec) != spec_digest(pod().spec)


def test_a_spec_with_the_mask_in_it_is_looked_at_each_time() -> None:
    masked = pod()
    for volume in (masked.spec.volumes[-1], masked.spec.containers[0].volumeMounts[-1]):
        volume.name = _TOKEN.format("\0" * 5)
    digest = spec_digest(masked.spec)
    assert digest == b""
    approved = ApprovedSpecs()
    approved.add(digest)
    assert digest not in approved


def test_the_oldest_is_forgotten() -> None:
    approved = ApprovedSpecs(most=2)
    for digest in (b"1", b"2", b"3"):
        approved.add(digest)
    assert [digest in approved for digest in (b"1", b"2", b"3")] == [False, True, True]


def test_faults_are_found_each_time_and_after_a_right_pod() -> None:
    strategy = strategy_of(Pod)
    wrong = pod()
    wrong.spec.containers[0].volumeMounts[0].name = "missing"
    found = [strategy.validate(context(), one) for one in (pod(), wrong, wrong, pod("x2y4z"))]
    assert [bool(errors) for errors in found] == [False, True, True, False]
    assert [str(error) for error in found[1]] == [str(error) for error in found[2]]


def test_a_second_volume_of_the_same_name_is_a_fault_after_its_like_was_right() -> None:
    strategy = strategy_of(Pod)
    first, second = pod("abcde", volume="kube-api-access-fghij"), pod("fghij", volume="kube-api-access-fghij")
    assert strategy.validate(context(), first) == []
    assert [error.type for error in strategy.validate(context(), second)][:1] != []
