"""An operator that uses what the example does not: children that come and go, a finalizer, events, another watch."""

from __future__ import annotations

from dataclasses import dataclass

from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys.api.core.v1.secret_pb2 import Secret
from tiphys_apimachinery.errors import AlreadyExists
from tiphys_sdk.operators.app import Custom, Operator, RequeueAfter, Watch, Work


@dataclass(frozen=True, slots=True)
class NoteSpec:
    """A text for each of these names."""

    text: str
    names: tuple[str, ...] = ()


class Note(Custom[NoteSpec], group="example.com"):
    """A text kept under several names, and entered in a ledger outside."""


notes = Operator("note-operator")


@notes.reconciles(Note, owns=(ConfigMap,), watches=(Watch(Secret, lambda one: (f"default/{one.metadata.name}",)),))
async def reconcile(note: Note, work: Work) -> RequeueAfter:
    """A ConfigMap a name, and an entry in the ledger."""
    for name in note.spec.names:
        child = ConfigMap(data={"text": note.spec.text})
        child.metadata.name = f"{note.metadata.name}-{name}"
        await work.apply(child)
    if work.get(Secret, note.metadata.name) is None:
        entry = Secret()
        entry.metadata.name, entry.metadata.namespace = note.metadata.name, note.metadata.namespace
        try:
            await work.client.create(entry)
            work.event("Entered", "it is in the ledger now")
        except AlreadyExists:
            pass  # an answer was lost, or we have not heard of it yet
    work.status(parts=len(note.spec.names))
    return RequeueAfter(120.0)


@notes.finalizes(Note)
async def finish(note: Note, work: Work) -> None:
    """Strike it from the ledger."""
    await work.client.delete(Secret, note.metadata.name, note.metadata.namespace, absent_ok=True)
