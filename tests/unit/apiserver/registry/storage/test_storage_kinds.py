"""Rules of storage classes, attachments and what drivers say of nodes, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from tests.unit.apiserver.registry.bench import create_faults, strategy_of, update_faults
from tiphys.api.storage.v1.storage_pb2 import CSIDriver, CSINode, StorageClass, VolumeAttachment

META = "metadata: {name: x}"
ATTACHMENT = f"{{{META}, spec: {{attacher: d, nodeName: n1, source: {{persistentVolumeName: v}}}}}}"


def storage_class(*parts: str) -> str:
    return f"{{{', '.join((META, *(parts or ('provisioner: csi.example.com',))))}}}"


def csi_node(*drivers: str) -> str:
    return f"{{{META}, spec: {{drivers: [{', '.join(drivers)}]}}}}"


@pytest.mark.parametrize(
    ("cls", "text", "fault"),
    [
        pytest.param(StorageClass, storage_class(), "", id="class"),
        pytest.param(StorageClass, storage_class("parameters: {a: b}"), "provisioner: Required value", id="nobody"),
        pytest.param(
            StorageClass, storage_class("provisioner: a/b/c"), 'provisioner: Invalid value: "a/b/c"', id="bad name"
        ),
        pytest.param(
            StorageClass,
            storage_class("provisioner: d", "parameters: {'': b}"),
            "field can not be empty.",
            id="parameter without name",
        ),
        pytest.param(
            StorageClass,
            storage_class(
                "provisioner: d",
                "allowedTopologies: [{matchLabelExpressions: [{key: z, values: [a]}, {key: z, values: [b]}]}]",
            ),
            "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value",
            id="label twice",
        ),
        pytest.param(VolumeAttachment, ATTACHMENT, "", id="attachment"),
        pytest.param(
            VolumeAttachment,
            ATTACHMENT.replace("persistentVolumeName: v", ""),
            "spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName",
            id="no volume",
        ),
        pytest.param(
            VolumeAttachment, ATTACHMENT.replace("nodeName: n1", "nodeName: N_1"), "spec.nodeName: Invalid", id="node"
        ),
        pytest.param(CSINode, csi_node("{name: d, nodeID: n, topologyKeys: [a/b]}"), "", id="node's driver"),
        pytest.param(
            CSINode,
            csi_node("{name: d, nodeID: n}", "{name: d, nodeID: n}"),
            "spec.drivers[1].name: Duplicate value",
            id="driver twice",
        ),
        pytest.param(CSINode, csi_node("{name: d}"), "spec.drivers[0].nodeID: Required value", id="no id"),
        pytest.param(
            CSINode, csi_node(f"{{name: d, nodeID: {'n' * 193}}}"), "must be 192 characters or less", id="long id"
        ),
        pytest.param(
            CSINode,
            csi_node("{name: d, nodeID: n, topologyKeys: [a, a]}"),
            "spec.drivers[0].topologyKeys[1]: Duplicate value",
            id="key twice",
        ),
    ],
)
def test_bad_objects_are_told_what_is_wrong(cls: type[Message], text: str, fault: str) -> None:
    found = create_faults(cls, text)
    assert (found == []) if not fault else any(fault in text for text in found), found


OLD_CLASS = storage_class("provisioner: d", "parameters: {a: b}", "reclaimPolicy: Delete")


@pytest.mark.parametrize(
    ("cls", "before", "after", "fault"),
    [
        pytest.param(
            StorageClass,
            OLD_CLASS,
            OLD_CLASS.replace("a: b", "a: c"),
            "updates to parameters are forbidden.",
            id="parameters",
        ),
        pytest.param(
            StorageClass,
            OLD_CLASS,
            OLD_CLASS.replace("provisioner: d", "provisioner: e"),
            "updates to provisioner are forbidden.",
            id="provisioner",
        ),
        pytest.param(
            StorageClass,
            OLD_CLASS,
            OLD_CLASS.replace("Delete", "Retain"),
            "updates to reclaimPolicy are forbidden.",
            id="reclaim policy",
        ),
        pytest.param(
            StorageClass,
            OLD_CLASS,
            storage_class("provisioner: d", "parameters: {a: b}", "volumeBindingMode: WaitForFirstConsumer"),
            "volumeBindingMode: Invalid value",
            id="binding mode",
        ),
        pytest.param(
            StorageClass,
            OLD_CLASS,
            storage_class("provisioner: d", "parameters: {a: b}", "allowVolumeExpansion: true"),
            "",
            id="growth may be allowed",
        ),
        pytest.param(
            VolumeAttachment,
            ATTACHMENT,
            ATTACHMENT.replace("n1", "n2"),
            "spec: Invalid value",
            id="attachment to another node",
        ),
        pytest.param(
            CSINode,
            csi_node("{name: d, nodeID: n}"),
            csi_node("{name: d, nodeID: m}"),
            "spec.drivers[0]: Invalid value",
            id="driver's id",
        ),
        pytest.param(
            CSINode,
            csi_node("{name: d, nodeID: n, allocatable: {count: 1}}"),
            csi_node("{name: d, nodeID: n, allocatable: {count: 2}}", "{name: e, nodeID: n}"),
            "",
            id="number of volumes, and one more driver",
        ),
    ],
)
def test_what_may_change_and_what_may_not(cls: type[Message], before: str, after: str, fault: str) -> None:
    found = update_faults(cls, before, after)
    assert (found == []) if not fault else any(fault in text for text in found), found


@pytest.mark.parametrize(
    ("name", "is_good"),
    [("hostpath.csi.tiphys.dev", True), ("a" * 64, False), ("no_underscore", False)],
    ids=["subdomain", "too long", "bad character"],
)
def test_names_of_drivers(name: str, is_good: bool) -> None:
    strategy: Any = strategy_of(CSIDriver)
    assert (strategy.validate_name(name) == []) == is_good
