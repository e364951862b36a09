from __future__ import annotations

from typing import Any

import pytest

from tiphys.api.core.v1 import scheduling_pb2
from tiphys.api.storage.v1 import storage_pb2
from tiphys.thirdparty.csi.v1 import csi_pb2
from tiphys_csi.companion.driver import ControllerRpc, DriverFacts
from tiphys_csi.companion.duty import reaches
from tiphys_csi.companion.requests import (
    BadClass,
    Claim,
    Parameters,
    capabilities_for,
    create_request,
    make_volume,
    read_parameters,
)

Mode = csi_pb2.VolumeCapability.AccessMode
FACTS = DriverFacts(name="d", has_topology=True, segments=(("zone", "z1"),))


def claim() -> Claim:
    made = Claim()
    made.metadata.name, made.metadata.namespace, made.metadata.uid = "data", "web", "u"
    made.metadata.annotations["team"] = "blue"
    made.spec.accessModes.append("ReadWriteOnce")
    made.spec.storageClassName = "fast"
    made.spec.resources.requests["storage"].string = "1Gi"
    made.spec.resources.limits["storage"].string = "2Gi"
    return made


def storage_class(**parameters: str) -> storage_pb2.StorageClass:
    made = storage_pb2.StorageClass(provisioner="d", reclaimPolicy="Delete", mountOptions=["noatime"])
    made.metadata.name = "fast"
    made.parameters.update({key.replace("__", "/").replace("_", "-"): text for key, text in parameters.items()})
    return made


def test_request_has_name_size_place_and_use() -> None:
    parameters = Parameters({"tier": "gold"}, fs_type="ext4")
    request = create_request(claim(), storage_class(), FACTS, parameters)
    assert request.name == "pvc-u"
    assert (request.capacity_range.required_bytes, request.capacity_range.limit_bytes) == (1 << 30, 2 << 30)
    assert dict(request.parameters) == {"tier": "gold"}
    (place,) = request.accessibility_requirements.requisite
    assert dict(place.segments) == {"zone": "z1"}
    (capability,) = request.volume_capabilities
    assert capability.mount.fs_type == "ext4"
    assert list(capability.mount.mount_flags) == ["noatime"]


def test_request_of_a_claim_never_changes() -> None:
    one, other = (create_request(claim(), storage_class(), FACTS, Parameters({})) for _ in range(2))
    assert one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("mode", "exact", "wanted"),
    [
        ("ReadWriteOnce", False, Mode.SINGLE_NODE_WRITER),
        ("ReadWriteOnce", True, Mode.SINGLE_NODE_MULTI_WRITER),
        ("ReadWriteOncePod", False, Mode.SINGLE_NODE_WRITER),
        ("ReadWriteOncePod", True, Mode.SINGLE_NODE_SINGLE_WRITER),
        ("ReadOnlyMany", False, Mode.MULTI_NODE_READER_ONLY),
        ("ReadWriteMany", False, Mode.MULTI_NODE_MULTI_WRITER),
    ],
)
def test_access_mode_is_as_exact_as_the_driver_can_tell(mode: str, exact: bool, wanted: Mode.Mode.ValueType) -> None:
    offered = frozenset({int(ControllerRpc.SINGLE_NODE_MULTI_WRITER)}) if exact else frozenset()
    facts = DriverFacts(name="d", controller=offered)
    (capability,) = capabilities_for([mode], "Filesystem", facts, fs_type="", mount_flags=())
    assert capability.access_mode.mode == wanted
    (block,) = capabilities_for([mode], "Block", facts, fs_type="", mount_flags=())
    assert block.WhichOneof("access_type") == "block"


def test_parameters_for_the_companion_do_not_reach_the_driver() -> None:
    given: dict[str, Any] = {
        "csi.storage.k8s.io__fstype": "xfs",
        "csi.storage.k8s.io__provisioner_secret_name": "${pvc.name}-${pvc.annotations['team']}",
        "csi.storage.k8s.io__provisioner_secret_namespace": "${pvc.namespace}",
        "tier": "gold",
    }
    found = read_parameters(storage_class(**given), claim())
    assert found == Parameters({"tier": "gold"}, "xfs", {"provisioner": ("web", "data-blue")})


@pytest.mark.parametrize(
    "given",
    [
        {"csi.storage.k8s.io__provisioner_secret_name": "a"},
        {"csi.storage.k8s.io__colour": "blue"},
        {
            "csi.storage.k8s.io__node_stage_secret_name": "${pvc.colour}",
            "csi.storage.k8s.io__node_stage_secret_namespace": "a",
        },
    ],
    ids=["half a secret", "unknown", "unknown template"],
)
def test_class_that_says_nonsense_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(BadClass):
        read_parameters(storage_class(**given), claim())


def test_volume_names_its_claim_place_and_secrets() -> None:
    made = csi_pb2.Volume(volume_id="h", capacity_bytes=3 << 30, volume_context={"a": "b"})
    for zone in ("z1", "z2"):
        made.accessible_topology.add().segments.update({"zone": zone, "rack": "r1"})
    parameters = Parameters({}, "", {"node-stage": ("web", "key"), "provisioner": ("web", "admin")})
    volume = make_volume(claim(), storage_class(), driver_name="d", made=made, parameters=parameters)
    csi = volume.spec.persistentVolumeSource.csi
    assert (volume.metadata.name, csi.driver, csi.volumeHandle) == ("pvc-u", "d", "h")
    assert volume.spec.capacity["storage"].string == "3Gi"
    assert (volume.spec.claimRef.namespace, volume.spec.claimRef.name, volume.spec.claimRef.uid) == ("web", "data", "u")
    assert (csi.nodeStageSecretRef.namespace, csi.nodeStageSecretRef.name) == ("web", "key")
    assert not csi.HasField("nodePublishSecretRef")
    affinity = volume.spec.nodeAffinity.required
    assert len(affinity.nodeSelectorTerms) == 2
    assert reaches({"zone": "z2", "rack": "r1"}, affinity)
    assert not reaches({"zone": "z2", "rack": "r2"}, affinity)


def test_volume_that_names_no_place_is_reached_from_nowhere() -> None:
    assert not reaches({"zone": "z1"}, scheduling_pb2.NodeSelector())
