"""subnet.env: what the flannel service tells the CNI plugin of the node's subnet.

Source: flannel pkg/subnet/subnet.go, WriteSubnetFile, and the flannel CNI plugin that reads it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

DEFAULT_PATH = Path("/run/flannel/subnet.env")


class SubnetFileError(Exception):
    """The file can't be used; the message names what is wrong with it."""


@dataclass(frozen=True, slots=True)
class SubnetEnv:
    """The file's values. subnet is the gateway's address with the subnet's length, such as 10.244.1.1/24."""

    network: IPv4Network
    subnet: IPv4Interface
    mtu: int
    ip_masq: bool

    @classmethod
    def of(cls, network: IPv4Network, subnet: IPv4Network, *, mtu: int, ip_masq: bool) -> SubnetEnv:
        """The values of a node that holds a subnet."""
        return cls(network, IPv4Interface((subnet.network_address + 1, subnet.prefixlen)), mtu, ip_masq)

    def text(self) -> str:
        """The file's text."""
        return (
            f"FLANNEL_NETWORK={self.network}\n"
            f"FLANNEL_SUBNET={self.subnet}\n"
            f"FLANNEL_MTU={self.mtu}\n"
            f"FLANNEL_IPMASQ={str(self.ip_masq).lower()}\n"
        )

    def write(self, path: Path) -> bool:
        """Puts the file in place at once; False where it says so already."""
        text = self.text()
        try:
            if path.read_text() == text:
                return False
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(path)
        return True


def parse(text: str) -> SubnetEnv:
    """Reads the file's text. Raises SubnetFileError."""
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    try:
        return SubnetEnv(
            network=IPv4Network(values["FLANNEL_NETWORK"]),
            subnet=IPv4Interface(values["FLANNEL_SUBNET"]),
            mtu=int(values["FLANNEL_MTU"]),
            ip_masq={"true": True, "false": False}[values["FLANNEL_IPMASQ"]],
        )
    except KeyError as err:
        raise SubnetFileError(f"{err.args[0]} is missing or neither true nor false") from err
    except ValueError as err:
        raise SubnetFileError(str(err)) from err


def read(path: Path) -> SubnetEnv:
    """Reads the file. Raises SubnetFileError, FileNotFoundError."""
    return parse(path.read_text())
