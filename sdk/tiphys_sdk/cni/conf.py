"""One call as a plugin gets it: the environment and the network configuration, checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tiphys_sdk.cni.spec import SUPPORTED_VERSIONS, CNIError, ErrorCode, Result

_CONTAINER_ID = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$")
_NETWORK_NAME = _CONTAINER_ID
_BAD_IFNAME = re.compile(r"[\s/:\x00]")

# Which variables each verb needs; the specification's table of parameters.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}


# Where GC finds the attachments that are to stay (SPEC.md 1.1.0, section 2, GC).
VALID_ATTACHMENTS = "cni.dev/valid-attachments"


@dataclass(frozen=True, slots=True)
class Attachment:
    """One container's interface on a network."""

    container_id: str
    ifname: str


@dataclass(frozen=True, slots=True)
class Call:
    """One verb with its parameters. netns is the path; netns_fd the open namespace, -1 where it is gone."""

    command: str
    container_id: str
    netns: str
    netns_fd: int
    ifname: str
    args: str
    path: str
    conf: Mapping[str, Any]

    @property
    def version(self) -> str:
        """cniVersion of the configuration; the answer is written in it."""
        return str(self.conf.get("cniVersion") or "0.1.0")

    @property
    def network(self) -> str:
        """Name of the network."""
        return str(self.conf.get("name", ""))

    @property
    def previous(self) -> Result | None:
        """The result of the plugins before this one in the chain."""
        found = self.conf.get("prevResult")
        return Result.from_json(found) if found is not None else None

    @property
    def valid_attachments(self) -> frozenset[Attachment]:
        """What GC must keep. Raises CNIError where the list is missing: taking that for "nothing" would free all."""
        entries = self.conf.get(VALID_ATTACHMENTS)
        try:
            return frozenset(Attachment(str(e["containerID"]), str(e["ifname"])) for e in entries)  # type: ignore[union-attr]
        except (KeyError, TypeError) as err:
            raise CNIError(ErrorCode.INVALID_CONFIG, f"{VALID_ATTACHMENTS}: {entries!r} is no list of them") from err

    def integer(self, key: str, default: int = 0) -> int:
        """An integer of the configuration. Raises CNIError naming key and value."""
        value = self.conf.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise CNIError(ErrorCode.INVALID_CONFIG, f"{key}: {value!r} is not an integer")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """A boolean of the configuration. Raises CNIError naming key and value."""
        value = self.conf.get(key, default)
        if not isinstance(value, bool):
            raise CNIError(ErrorCode.INVALID_CONFIG, f"{key}: {value!r} is neither true nor false")
        return value


def parse_call(environment: Mapping[str, str], stdin: bytes, netns_fd: int) -> Call:
    """Checks a call as every plugin must before it acts. Raises CNIError."""
    command = environment.get("CNI_COMMAND", "")
    if command not in REQUIRED:
        raise CNIError(ErrorCode.INVALID_ENVIRONMENT, f"CNI_COMMAND: unknown verb {command!r}")
    missing = [name for name in REQUIRED[command] if not environment.get(name)]
    if missing:
        raise CNIError(ErrorCode.INVALID_ENVIRONMENT, f"{command} needs {', '.join(missing)} in the environment")
    container_id, ifname = environment.get("CNI_CONTAINERID", ""), environment.get("CNI_IFNAME", "")
    if container_id and not _CONTAINER_ID.match(container_id):
        raise CNIError(ErrorCode.INVALID_ENVIRONMENT, f"CNI_CONTAINERID: invalid characters in {container_id!r}")
    if ifname and (len(ifname) > 15 or ifname in (".", "..") or _BAD_IFNAME.search(ifname)):
        raise CNIError(ErrorCode.INVALID_ENVIRONMENT, f"CNI_IFNAME: {ifname!r} is no name of an interface")
    return Call(
        command=command,
        container_id=container_id,
        netns=environment.get("CNI_NETNS", ""),
        netns_fd=netns_fd,
        ifname=ifname,
        args=environment.get("CNI_ARGS", ""),
        path=environment.get("CNI_PATH", ""),
        conf=_parse_conf(command, stdin),
    )


def _parse_conf(command: str, stdin: bytes) -> Mapping[str, Any]:
    if command == "VERSION" and not stdin.strip():
        return {}
    try:
        conf = json.loads(stdin)
    except ValueError as err:
        raise CNIError(ErrorCode.DECODING_FAILURE, f"standard input is not JSON: {err}") from err
    if not isinstance(conf, dict):
        raise CNIError(ErrorCode.DECODING_FAILURE, "standard input is not a JSON object")
    if command == "VERSION":
        return conf
    version = conf.get("cniVersion") or "0.1.0"
    if version not in SUPPORTED_VERSIONS:
        raise CNIError(
            ErrorCode.INCOMPATIBLE_VERSION,
            "incompatible CNI versions",
            f"config is {version!r}, plugin supports {list(SUPPORTED_VERSIONS)}",
        )
    name = conf.get("name", "")
    if not isinstance(name, str) or not _NETWORK_NAME.match(name):
        raise CNIError(ErrorCode.INVALID_CONFIG, f"name: {name!r} is no valid name of a network")
    return conf
