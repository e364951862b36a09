"""Which address belongs to which container: one file an address, as upstream's host-local keeps them.

The format is the reference plugin's (file name the address, content "ID\\r\\nIFNAME"), so either
plugin can carry on where the other stopped. A file appears whole or not at all (hard link of a
finished temporary file), hence a kill at any line leaks nothing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

DEFAULT_DATA_DIR = "/var/lib/cni/networks"
IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Owner:
    """Who an address belongs to."""

    container_id: str
    ifname: str


class Store:
    """The addresses of one network. Use it inside `locked()`."""

    def __init__(self, network: str, data_dir: str = "") -> None:
        self._folder = self.folder(network, data_dir)
        self._folder.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def folder(network: str, data_dir: str = "") -> Path:
        """Where a network's addresses lie; the folder is there once one was given out."""
        return Path(data_dir or DEFAULT_DATA_DIR) / network

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out."""
        with open(self._folder / "lock", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def taken(self) -> dict[IPAddress, Owner]:
        """Every reserved address."""
        found: dict[IPAddress, Owner] = {}
        for entry in os.scandir(self._folder):
            address = _address_of(entry.name)
            if address is not None:
                found[address] = self._owner(entry.path)
        return found

    def reserve(self, address: IPAddress, owner: Owner, range_index: int) -> bool:
        """Takes an address; False where it is taken."""
        temporary = self._folder / f".{owner.container_id}.{os.getpid()}"
        temporary.write_text(f"{owner.container_id}\r\n{owner.ifname}")
        try:
            os.link(temporary, self._folder / _file_name(address))
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        last = self._folder / f"last_reserved_ip.{range_index}"
        fresh = self._folder / f".last.{range_index}"
        fresh.write_text(str(address))
        fresh.replace(last)
        return True

    def last_reserved(self, range_index: int) -> IPAddress | None:
        """The address given out last, from where the search goes on."""
        try:
            return ip_address((self._folder / f"last_reserved_ip.{range_index}").read_text().strip())
        except (FileNotFoundError, ValueError):
            return None

    def release(self, owner: Owner) -> list[IPAddress]:
        """Frees whatever the owner has; nothing where it has nothing."""
        freed = [address for address, holder in self.taken().items() if holder == owner]
        for address in freed:
            (self._folder / _file_name(address)).unlink(missing_ok=True)
        return freed

    def _owner(self, path: str) -> Owner:
        with open(path) as file:
            lines = file.read().split("\n")
        return Owner(lines[0].strip(), lines[1].strip() if len(lines) > 1 else "")


def _file_name(address: IPAddress) -> str:
    return str(address)


def _address_of(name: str) -> IPAddress | None:
    try:
        return ip_address(name)
    except ValueError:
        return None
