"""Sizes of bound claims: what may be asked for once there is a volume."""

from __future__ import annotations

import pytest

from tests.unit.apiserver.fake_objects import read
from tests.unit.apiserver.registry.bench import context, strategy_of
from tiphys.api.core.v1.persistent_volume_claim_pb2 import PersistentVolumeClaim


def bound(size: str, holds: str) -> PersistentVolumeClaim:
    return read(
        PersistentVolumeClaim,
        "{metadata: {name: x, namespace: web, uid: u, resourceVersion: '1'},"
        f" spec: {{volumeName: v, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: {size}}}}}}},"
        f" status: {{phase: Bound, capacity: {{storage: {holds}}}}}}}",
    )


@pytest.mark.parametrize(
    ("before", "after", "holds", "is_refused"),
    [
        pytest.param("1Mi", "1Mi", "1Gi", False, id="nothing changed, volume larger than asked for"),
        pytest.param("1Gi", "2Gi", "1Gi", False, id="grows"),
        pytest.param("1Mi", "2Mi", "1Gi", False, id="grows within its volume"),
        pytest.param("1Gi", "1Mi", "1Gi", True, id="shrinks below its volume"),
        pytest.param("4Gi", "2Gi", "1Gi", False, id="takes back what could not be had"),
    ],
)
def test_a_bound_claim_never_shrinks_below_its_volume(before: str, after: str, holds: str, is_refused: bool) -> None:
    strategy = strategy_of(PersistentVolumeClaim)
    errors = strategy.validate_update(context(), bound(after, holds), bound(before, holds))
    texts = [str(error) for error in errors]
    expected = ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]
    assert texts == (expected if is_refused else [])
