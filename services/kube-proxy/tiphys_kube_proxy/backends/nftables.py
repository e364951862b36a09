"""nftables by the nft command: whole tables at first, then only what changed, always in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from tiphys_component.log import get_logger
from tiphys_component.proc import run_command
from tiphys_kube_proxy.nft_rules import TABLE, Settings, rule_set
from tiphys_kube_proxy.ruleset import RuleSet, change, replace_all
from tiphys_kube_proxy.service_map import ServicePort

_log = get_logger("kube-proxy.nftables")
_TIMEOUT_S = 30.0


class NftError(Exception):
    """nft refused a transaction; nothing of it was applied."""


class Nftables:
    """Applies service ports; remembers what the kernel has, and trusts it only after a success."""

    def __init__(self, settings: Settings, *, versions: tuple[int, ...] = (4,)) -> None:
        self._settings = settings
        self._versions = versions
        self._applied: dict[int, RuleSet] = {}

    async def apply(self, ports: Sequence[ServicePort]) -> int:
        """Makes the kernel serve the ports; returns the bytes of rules written. Raises NftError."""
        return sum([await self._apply_family(ports, version) for version in self._versions])

    async def _apply_family(self, ports: Sequence[ServicePort], version: int) -> int:
        wanted = rule_set(ports, self._settings, version=version)
        before = self._applied.pop(version, None)
        text = change(before, wanted) if before is not None else replace_all(wanted)
        if text:
            try:
                await _nft(text)
            except NftError as err:
                if before is None:
                    raise
                # Somebody else changed the table: write it whole.
                _log.warning("rules differ from what was written", err=str(err))
                text = replace_all(wanted)
                await _nft(text)
        self._applied[version] = wanted
        return len(text)

    def forget(self) -> None:
        """Has the next apply write everything."""
        self._applied.clear()

    async def remove(self) -> None:
        """Takes every rule out of the kernel; nothing there is well."""
        for version in self._versions:
            where = f"{'ip' if version == 4 else 'ip6'} {TABLE}"
            await _nft(f"add table {where}\ndelete table {where}\n")


async def _nft(text: str) -> None:
    done = await run_command(["nft", "-f", "-"], stdin=text.encode(), timeout_s=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise NftError(done.stderr.decode(errors="replace").strip().partition("\n")[0])
