"""Writes on their way through admission, for tests."""

from __future__ import annotations

from typing import Any

from tiphys_apimachinery.scheme import load_default
from tiphys_apiserver.admission.interface import AdmissionAttributes, Operation
from tiphys_apiserver.authentication.interface import UserInfo

ANN = UserInfo("ann", groups=("dev",))


def write(
    operation: Operation,
    obj: Any = None,
    old: Any = None,
    *,
    user: UserInfo = ANN,
    subresource: str = "",
    parent: Any = None,
) -> AdmissionAttributes:
    """The attributes of a write of obj; parent is the class of the resource where obj is of another kind."""
    seen = obj if obj is not None else old
    info = load_default().by_message(parent or type(seen))
    assert info is not None
    return AdmissionAttributes(
        operation, info, subresource, seen.metadata.namespace, seen.metadata.name, obj, old, user
    )
