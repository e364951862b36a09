"""Executes plugins as a runtime does: one by one, each with the result of those before it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiphys_sdk.cni.conf import VALID_ATTACHMENTS
from tiphys_sdk.cni.delegate import Done, execute, find
from tiphys_sdk.cni.spec import CNIError
from tiphys_sdk.conformance.bench import Bench, Failure
from tiphys_sdk.conformance.cni.profiles import NETWORK, PORT_MAPPINGS, Role
from tiphys_sdk.conformance.cni.results import faults_of_error
from tiphys_sdk.conformance.cni.scene import Scene


@dataclass(frozen=True, slots=True)
class Link:
    """One plugin of a chain."""

    type: str
    role: Role
    conf: Mapping[str, Any]


@dataclass(slots=True)
class Attachment:
    """A container on the network; result is what its ADD gave, and what its CHECK and DEL are given."""

    container: str
    ifname: str
    version: str
    result: dict[str, Any] = field(default_factory=dict)
    # What a chain begins with; only the kit gives some, to plugins that cannot be the first.
    before: dict[str, Any] = field(default_factory=dict)


class Chain:
    """Plugins in order. Every call is recorded; one that does not end in limit_s is killed and is a failure."""

    def __init__(self, links: tuple[Link, ...], path: str, scene: Scene, bench: Bench, *, limit_s: float) -> None:
        self.links = links
        self.path = path
        self._scene = scene
        self._bench = bench
        self._limit_s = limit_s

    async def call(
        self,
        link: Link,
        verb: str,
        *,
        container: str = "",
        netns: str | None = None,
        ifname: str = "eth0",
        stdin: bytes | Mapping[str, Any] = b"",
        limit_s: float | None = None,
        leave_out: tuple[str, ...] = (),
    ) -> Done:
        """Executes one plugin in the node's namespace. Raises Failure where it does not end or can't be run."""
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}" if netns is None else netns,
            "CNI_IFNAME": ifname,
            "CNI_PATH": self.path,
        }
        environment = {name: value for name, value in environment.items() if name not in leave_out}
        data = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
        command = ["nsenter", f"--net=/run/netns/{self._scene.netns}", find(link.type, self.path)]
        shown = " ".join(f"{n}={v}" for n, v in environment.items() if n.startswith("CNI_"))
        request = f"{shown} {data.decode(errors='replace')}"
        limit = self._limit_s if limit_s is None else limit_s
        try:
            done = await asyncio.to_thread(execute, command, environment, data, timeout_s=limit)
        except CNIError as err:
            self._bench.record(link.type, request, f"{err.message}")
            raise Failure(err.message) from err
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        self._bench.record(link.type, request, f"exit {done.exit_code} {said}")
        return done

    def conf(self, link: Link, version: str, **extra: Any) -> dict[str, Any]:
        """A configuration as a runtime hands it to a plugin, with a field that no plugin knows."""
        conf = {"cniVersion": version, "name": NETWORK, "type": link.type, **link.conf, "kit.tiphys.dev/unknown": 1}
        capabilities = conf.get("capabilities") or {}
        if capabilities.get("portMappings"):
            conf["runtimeConfig"] = {"portMappings": PORT_MAPPINGS}
        return conf | extra

    async def add(self, attachment: Attachment) -> dict[str, Any]:
        """ADD of the whole chain; gives and keeps the last result. Raises Failure."""
        result = attachment.before
        for link in self.links:
            extra: dict[str, Any] = {"prevResult": result} if result else {}
            done = await self._verb("ADD", link, attachment, **extra)
            result = _decoded(done)
        attachment.result = result
        return result

    async def check(self, attachment: Attachment) -> None:
        """CHECK of the whole chain. Raises Failure."""
        for link in self.links:
            _quiet(await self._verb("CHECK", link, attachment, prevResult=attachment.result))

    async def delete(self, attachment: Attachment, *, netns: str | None = None) -> None:
        """DEL of the whole chain, backwards. Raises Failure."""
        for link in reversed(self.links):
            extra: dict[str, Any] = (
                {"prevResult": attachment.result} if attachment.result and attachment.version >= "0.4" else {}
            )
            await self._verb("DEL", link, attachment, netns=netns, **extra)

    async def _verb(
        self, verb: str, link: Link, attachment: Attachment, *, netns: str | None = None, **extra: Any
    ) -> Done:
        ifname = "lo" if link.role is Role.LOOPBACK else attachment.ifname
        stdin = self.conf(link, attachment.version, **extra)
        done = await self.call(link, verb, container=attachment.container, netns=netns, ifname=ifname, stdin=stdin)
        return succeeded(verb, link, done)

    async def collect(self, keep: list[Attachment], version: str) -> None:
        """GC of the whole chain. Raises Failure."""
        valid = [{"containerID": one.container, "ifname": one.ifname} for one in keep]
        for link in self.links:
            stdin = self.conf(link, version, **{VALID_ATTACHMENTS: valid})
            _quiet(succeeded("GC", link, await self.call(link, "GC", stdin=stdin, leave_out=_NO_CONTAINER)))

    async def status(self, version: str) -> None:
        """STATUS of the whole chain. Raises Failure."""
        for link in self.links:
            stdin = self.conf(link, version)
            _quiet(succeeded("STATUS", link, await self.call(link, "STATUS", stdin=stdin, leave_out=_NO_CONTAINER)))


_NO_CONTAINER = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME")


def succeeded(verb: str, link: Link, done: Done) -> Done:
    """The same. Raises Failure with the plugin's words where it failed."""
    if done.exit_code != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise Failure(f"{link.type}: {verb} ended with {done.exit_code}: {said[:500]}")
    return done


def refused(done: Done, code: int) -> None:
    """Raises Failure unless the call failed with an error object of that code; 0 takes any."""
    if done.exit_code == 0:
        raise Failure(f"it succeeded: {done.stdout.decode(errors='replace')[:200]!r}")
    found = _decoded(done)
    faults = list(faults_of_error(found))
    if faults:
        raise Failure(f"the error is not one: {'; '.join(faults)}")
    if code and found["code"] != code:
        raise Failure(f"code {found['code']} where {code} is demanded: {found['msg']}")


def _quiet(done: Done) -> None:
    if done.stdout.strip():
        raise Failure(f"it wrote {done.stdout[:200]!r} where nothing is to be written")


def _decoded(done: Done) -> dict[str, Any]:
    try:
        found = json.loads(done.stdout)
    except ValueError as err:
        raise Failure(f"standard output is no JSON: {done.stdout[:200]!r}") from err
    if not isinstance(found, dict):
        raise Failure(f"standard output is no JSON object: {done.stdout[:200]!r}")
    return found


def addresses_kept(data: Path) -> set[str]:
    """What host-local has reserved in the kit's folder."""
    return {path.name for path in data.rglob("*") if path.name[0].isdigit()}
