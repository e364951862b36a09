"""What a runtime answers when it can't do what was asked.

    CRIError                  any refusal; carries the gRPC code and the runtime's own words
      CRINotFound             no such sandbox, container or image
      CRIUnavailable          the runtime does not answer at its socket
      CRITimeout              the call, or the command in the container, took too long
      CRIUnimplemented        this runtime does not have the call

Runtimes put many different faults under UNKNOWN, so callers look at the class where it is telling and pass the words on
to people otherwise; nothing compares the text.
"""

from __future__ import annotations

import grpc
import grpc.aio


class CRIError(Exception):
    """The runtime refused a call."""

    def __init__(self, message: str, *, call: str = "", code: grpc.StatusCode = grpc.StatusCode.UNKNOWN) -> None:
        super().__init__(message)
        self.message = message
        self.call = call
        self.code = code

    @property
    def wire_text(self) -> str:
        """The words as Kubernetes shows them in statuses and events."""
        return f"rpc error: code = {_GO_NAMES.get(self.code, 'Unknown')} desc = {self.message}"


class CRINotFound(CRIError):
    """There is no such sandbox, container or image."""


class CRIUnavailable(CRIError):
    """Nothing answers at the runtime's endpoint."""


class CRITimeout(CRIError):
    """The call took longer than it was given."""


class CRIUnimplemented(CRIError):
    """The runtime is older than the call."""


_CLASSES: dict[grpc.StatusCode, type[CRIError]] = {
    grpc.StatusCode.NOT_FOUND: CRINotFound,
    grpc.StatusCode.UNAVAILABLE: CRIUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: CRITimeout,
    grpc.StatusCode.UNIMPLEMENTED: CRIUnimplemented,
}
# gRPC's names in Go, which is how users know them from kubectl describe.
_GO_NAMES = {code: "".join(word.capitalize() for word in code.name.split("_")) for code in grpc.StatusCode} | {
    grpc.StatusCode.OK: "OK"
}


def from_rpc_error(err: grpc.aio.AioRpcError, call: str) -> CRIError:
    """The error of our tree for what the channel raised."""
    code = err.code()
    return _CLASSES.get(code, CRIError)(err.details() or code.name, call=call, code=code)
