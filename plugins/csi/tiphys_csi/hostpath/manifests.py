"""The objects that a cluster with the hostpath driver has: the driver, and the default storage class."""

from __future__ import annotations

from tiphys.api.storage.v1 import storage_pb2
from tiphys_csi.hostpath.rules import DRIVER_NAME

DEFAULT_CLASS = "standard"
# Source: kubernetes pkg/apis/storage/v1/util, the annotation of a default class.
IS_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def csi_driver(*, attach: bool = False) -> storage_pb2.CSIDriver:
    """What the cluster must know of the driver; attach as the driver's flag."""
    driver = storage_pb2.CSIDriver()
    driver.metadata.name = DRIVER_NAME
    driver.spec.attachRequired = attach
    driver.spec.podInfoOnMount = False
    driver.spec.volumeLifecycleModes.append("Persistent")
    # The pod's group owns the files, as it would on a disk of its own.
    driver.spec.fsGroupPolicy = "File"
    return driver


def storage_class(name: str = DEFAULT_CLASS, *, default: bool = True) -> storage_pb2.StorageClass:
    """A class of hostpath volumes, each made on the node of its first pod."""
    made = storage_pb2.StorageClass()
    made.metadata.name = name
    if default:
        made.metadata.annotations[IS_DEFAULT_CLASS] = "true"
    made.provisioner = DRIVER_NAME
    made.reclaimPolicy = "Delete"
    made.volumeBindingMode = "WaitForFirstConsumer"
    made.allowVolumeExpansion = True
    return made


def manifests() -> tuple[storage_pb2.CSIDriver, storage_pb2.StorageClass]:
    """Both, for `tiphys up`."""
    return csi_driver(), storage_class()
