"""Steps through the life of attachments: made, checked, taken away, again, without namespace, many at once, killed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tiphys_sdk.conformance.bench import Bench, Failure, expect
from tiphys_sdk.conformance.cni.chain import Attachment, Chain, addresses_kept, refused
from tiphys_sdk.conformance.cni.profiles import Role
from tiphys_sdk.conformance.cni.results import faults_of_result
from tiphys_sdk.conformance.cni.scene import Scene

_AT_ONCE = 8
# How long an ADD may live before it is killed: most plugins are in the middle of their work then.
_KILLS_S = (0.001, 0.003, 0.006, 0.01, 0.02, 0.04, 0.08, 0.15)
_BEFORE_ADDRESS, _BEFORE_ADDRESS_6 = "10.201.0.77/24", "fd00:201::77/64"
_LOOKS, _LOOK_S = 40, 0.05


class Lives:
    """Runs the steps over one chain."""

    def __init__(self, chain: Chain, scene: Scene, bench: Bench, *, strict: bool, kills: int) -> None:
        self._chain = chain
        self._scene = scene
        self._bench = bench
        self._strict = strict
        self._kills_s = _KILLS_S[-kills:] if kills else ()
        roles = [link.role for link in chain.links]
        self._makes_interface = Role.MAIN in roles
        self._is_ipam = roles == [Role.IPAM]
        self._is_meta = Role.META in roles and not self._makes_interface
        ipams = [(link.conf.get("ipam") or {}).get("type") for link in chain.links]
        self._keeps_addresses = "host-local" in ipams

    async def all_steps(self, versions: Sequence[str]) -> None:
        """Every step, for each version where it may differ; none without a version."""
        async with self._bench.step("speaks a version", "a version of 0.3.0 or newer is spoken by all plugins"):
            expect(versions, "no version is left")
        if not versions:
            return
        before = set(await self._scene.links(self._scene.netns))
        for version in versions:
            await self._one_life(version)
        newest = versions[-1]
        await self._damage(newest)
        await self._without_namespace(newest)
        await self._absent_namespace(newest)
        await self._name_taken(newest)
        await self._many(newest)
        await self._twice(newest)
        await self._killed(newest)
        await self._garbage(versions)
        await self._status(versions)
        async with self._bench.step("leaves nothing", "after DEL no interface and no address is left on the node"):
            await self._expect_nothing(before)

    async def _expect_nothing(self, before: set[str]) -> None:
        left = await self._left(before)
        for _ in range(_LOOKS):
            if not left:
                break
            # The kernel takes a dead namespace's interfaces away a moment later.
            await self._bench.clock.sleep(_LOOK_S)
            left = await self._left(before)
        expect(not left, f"interfaces are left: {', '.join(sorted(left))}")
        addresses = addresses_kept(self._scene.data)
        expect(not addresses, f"addresses are left: {', '.join(sorted(addresses))}")

    async def _left(self, before: set[str]) -> set[str]:
        links = await self._scene.links(self._scene.netns)
        bridges = {name for name, link in links.items() if link.get("linkinfo", {}).get("info_kind") == "bridge"}
        return set(links) - before - bridges

    async def _attachment(self, version: str) -> Attachment:
        """A container that is to be attached; plugins that cannot be the first get a result made here."""
        container = await self._scene.container()
        found = Attachment(container, "eth0", version)
        if self._is_meta:
            found.before = await self._made_by_hand(container, version)
        return found

    async def _made_by_hand(self, container: str, version: str) -> dict[str, Any]:
        node, host = self._scene.netns, f"hand{container[-8:]}"
        peer = ("peer", "name", "eth0", "netns", container)
        await self._scene.ip(node, "link", "add", host, "type", "veth", *peer)
        await self._scene.ip(container, "address", "add", _BEFORE_ADDRESS, "dev", "eth0")
        await self._scene.ip(container, "address", "add", _BEFORE_ADDRESS_6, "dev", "eth0", "nodad")
        await self._scene.ip(container, "link", "set", "eth0", "up")
        await self._scene.ip(node, "link", "set", host, "up")
        await self._scene.ip(node, "route", "replace", _BEFORE_ADDRESS.split("/")[0], "dev", host)
        ips: list[dict[str, Any]] = [{"address": a, "interface": 1} for a in (_BEFORE_ADDRESS, _BEFORE_ADDRESS_6)]
        if version < "1":
            ips = [entry | {"version": family} for entry, family in zip(ips, "46", strict=True)]
        return {
            "cniVersion": version,
            "interfaces": [{"name": host}, {"name": "eth0", "sandbox": f"/run/netns/{container}"}],
            "ips": ips,
        }

    async def _end(self, attachment: Attachment) -> None:
        """DEL and no more container, whatever the step found."""
        try:
            await self._chain.delete(attachment)
        finally:
            await self._scene.forget(attachment.container)

    async def _one_life(self, version: str) -> None:
        step, attachment = self._bench.step, await self._attachment(version)
        async with step(
            f"ADD {version}", f"ADD gives a result of version {version} (section 5), and what it says is so"
        ):
            result = await self._chain.add(attachment)
            faults = list(faults_of_result(result, version, ipam=self._is_ipam, strict=self._strict))
            if faults:
                raise Failure("; ".join(faults))
            await self._expect_true(attachment)
        if version >= "0.4":
            async with step(f"CHECK {version}", "CHECK of what ADD made succeeds and writes nothing"):
                self._need(f"ADD {version}")
                await self._chain.check(attachment)
        async with step(f"DEL {version}", "DEL succeeds and frees interface and address"):
            await self._chain.delete(attachment)
            await self._expect_detached(attachment)
        async with step(f"DEL twice {version}", "DEL of what is gone succeeds (section 2, DEL)"):
            await self._chain.delete(attachment)
        await self._scene.forget(attachment.container)

    def _need(self, name: str) -> None:
        if not self._bench.passed(name):
            self._bench.skip(f"{name} did not pass")

    async def _expect_true(self, attachment: Attachment) -> None:
        """What the result says of the container is what the kernel has."""
        result = attachment.result
        if self._is_ipam:
            expect(result.get("ips"), "an ipam plugin gives at least one address")
            return
        if self._is_meta:
            for key in ("interfaces", "ips"):
                now, then = result.get(key), attachment.before[key]
                expect(now is not None and len(now) >= len(then), f"{key} of prevResult are not passed on: {now}")
        if not self._makes_interface:
            return
        netns = f"/run/netns/{attachment.container}"
        inner = {i["name"] for i in result.get("interfaces") or [] if i.get("sandbox") == netns}
        expect(attachment.ifname in inner, f"interfaces name no {attachment.ifname} with sandbox {netns}")
        link = (await self._scene.links(attachment.container)).get(attachment.ifname)
        if link is None:
            raise Failure(f"there is no {attachment.ifname} in the container")
        there = {f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", ())}
        told = {entry["address"] for entry in result.get("ips") or []}
        expect(told <= there, f"the result says {sorted(told)}, the interface has {sorted(there)}")

    async def _expect_detached(self, attachment: Attachment) -> None:
        if self._makes_interface:
            links = await self._scene.links(attachment.container)
            expect(attachment.ifname not in links, f"{attachment.ifname} is still in the container")
        if self._keeps_addresses:
            kept = addresses_kept(self._scene.data)
            expect(not kept, f"addresses are still reserved: {', '.join(sorted(kept))}")

    async def _damage(self, version: str) -> None:
        async with self._bench.step("CHECK finds damage", "CHECK fails once the interface is gone (section 2, CHECK)"):
            if not self._makes_interface or version < "0.4":
                self._bench.skip("makes no interface, or does not know CHECK")
            attachment = await self._attachment(version)
            try:
                await self._chain.add(attachment)
                await self._scene.ip(attachment.container, "link", "del", attachment.ifname)
                link = next(link for link in self._chain.links if link.role is Role.MAIN)
                conf = self._chain.conf(link, version, prevResult=attachment.result)
                refused(await self._chain.call(link, "CHECK", container=attachment.container, stdin=conf), 0)
            finally:
                await self._end(attachment)

    async def _without_namespace(self, version: str) -> None:
        demand = "DEL succeeds when the namespace is gone or not named, and frees the rest (section 2, DEL)"
        async with self._bench.step("DEL without namespace", demand):
            for netns in ("", None):
                attachment = await self._attachment(version)
                try:
                    await self._chain.add(attachment)
                finally:
                    await self._scene.forget(attachment.container)
                await self._chain.delete(attachment, netns=netns)
                kept = addresses_kept(self._scene.data)
                expect(not kept, f"addresses are still reserved: {', '.join(sorted(kept))}")

    async def _absent_namespace(self, version: str) -> None:
        async with self._bench.step(
            "ADD without namespace", "ADD to a namespace that is not there fails, leaves nothing"
        ):
            if not self._makes_interface:
                self._bench.skip("makes no interface")
            before = set(await self._scene.links(self._scene.netns))
            link = self._chain.links[0]
            stdin = self._chain.conf(link, version)
            refused(await self._chain.call(link, "ADD", container="cni-kit-absent", stdin=stdin), 0)
            await self._expect_nothing(before)

    async def _name_taken(self, version: str) -> None:
        async with self._bench.step("failed ADD", "ADD where the interface's name is taken fails, leaves nothing"):
            if not self._makes_interface:
                self._bench.skip("makes no interface")
            attachment = await self._attachment(version)
            before = set(await self._scene.links(self._scene.netns))
            await self._scene.ip(attachment.container, "link", "add", "eth0", "type", "bridge")
            link = self._chain.links[0]
            stdin = self._chain.conf(link, version)
            refused(await self._chain.call(link, "ADD", container=attachment.container, stdin=stdin), 0)
            await self._scene.forget(attachment.container)
            await self._expect_nothing(before)

    async def _many(self, version: str) -> None:
        demand = f"{_AT_ONCE} ADDs at once get {_AT_ONCE} addresses, {_AT_ONCE} DELs at once free them"
        async with self._bench.step("at once", demand):
            if not self._keeps_addresses:
                self._bench.skip("addresses are not host-local's")
            made = [await self._attachment(version) for _ in range(_AT_ONCE)]
            try:
                async with asyncio.TaskGroup() as group:
                    for one in made:
                        group.create_task(self._chain.add(one))
                addresses = {entry["address"] for one in made for entry in one.result["ips"]}
                expect(len(addresses) == _AT_ONCE, f"only {len(addresses)} addresses: {', '.join(sorted(addresses))}")
            finally:
                async with asyncio.TaskGroup() as group:
                    for one in made:
                        group.create_task(self._end(one))

    async def _twice(self, version: str) -> None:
        async with self._bench.step("ADD twice", "a second ADD changes nothing for the first (strict)"):
            if not self._strict:
                self._bench.skip("the specification leaves it to the runtime; ask with --option strict=true")
            attachment = await self._attachment(version)
            try:
                first = await self._chain.add(attachment)
                again = Attachment(attachment.container, attachment.ifname, version, before=attachment.before)
                try:
                    second = await self._chain.add(again)
                except Failure:
                    second = first  # To refuse is well.
                expect(second.get("ips") == first.get("ips"), f"the second ADD gave {second.get('ips')}")
                await self._chain.check(attachment)
            finally:
                await self._end(attachment)

    async def _killed(self, version: str) -> None:
        demand = "after a kill in the middle of ADD, DEL frees everything and ADD works again"
        async with self._bench.step("killed in the middle", demand):
            if not self._kills_s:
                self._bench.skip("no kills are asked for")
            for after_s in self._kills_s:
                attachment = await self._attachment(version)
                before = set(await self._scene.links(self._scene.netns))
                try:
                    for link in self._chain.links[:1]:
                        extra = {"prevResult": attachment.before} if attachment.before else {}
                        stdin = self._chain.conf(link, version, **extra)
                        await self._kill(link, attachment, stdin, after_s)
                    await self._chain.delete(attachment)
                    if self._is_meta:
                        # What is before it in the chain makes a new interface then.
                        await self._scene.forget(attachment.container)
                        attachment = await self._attachment(version)
                    await self._chain.add(attachment)
                finally:
                    await self._end(attachment)
                if not self._is_meta:
                    await self._expect_nothing(before)

    async def _kill(self, link: Any, attachment: Attachment, stdin: dict[str, Any], after_s: float) -> None:
        ifname = "lo" if link.role is Role.LOOPBACK else attachment.ifname
        container = attachment.container
        try:
            await self._chain.call(link, "ADD", container=container, ifname=ifname, stdin=stdin, limit_s=after_s)
        except Failure:
            return  # It was killed, which was the aim; a quicker plugin has done its work.

    async def _garbage(self, versions: Sequence[str]) -> None:
        async with self._bench.step("GC", "GC frees what is not among the valid attachments, and nothing else"):
            if "1.1.0" not in versions:
                self._bench.skip("does not speak 1.1.0")
            kept, lost = await self._attachment("1.1.0"), await self._attachment("1.1.0")
            if self._is_meta:
                # Both have the host ports of the kit, which one container alone can have.
                await self._chain.add(lost)
                await self._chain.collect([kept], "1.1.0")
                await self._chain.add(kept)
            else:
                await self._chain.add(kept)
                await self._chain.add(lost)
                await self._chain.collect([kept], "1.1.0")
            try:
                await self._chain.check(kept)
                if self._keeps_addresses:
                    held = addresses_kept(self._scene.data)
                    expect(len(held) == 1, f"one address is to be left, there are {', '.join(sorted(held)) or 'none'}")
                await self._chain.collect([kept], "1.1.0")
            finally:
                await self._end(lost)
                await self._end(kept)

    async def _status(self, versions: Sequence[str]) -> None:
        async with self._bench.step("STATUS", "STATUS of a plugin that is ready succeeds and writes nothing"):
            if "1.1.0" not in versions:
                self._bench.skip("does not speak 1.1.0")
            await self._chain.status("1.1.0")
