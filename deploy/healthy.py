"""Ends with 0 where every address answers: a health check for containers, on the standard library alone.

An https:// or http:// URL answers with a status below 400; HOST:PORT takes a connection. Certificates are not verified:
the container asks itself.
"""

from __future__ import annotations

import socket
import ssl
import sys
import urllib.request

_TIMEOUT_S = 3.0


def main(addresses: list[str]) -> int:
    """Prints the first address that does not answer; returns the exit code."""
    for address in addresses:
        try:
            answer(address)
        except OSError as err:
            sys.stderr.write(f"{address}: {err}\n")
            return 1
    return 0


def answer(address: str) -> None:
    """Returns when the address answers. Raises OSError otherwise."""
    if address.startswith(("http://", "https://")):
        unverified = ssl.create_default_context()
        unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
        with urllib.request.urlopen(address, timeout=_TIMEOUT_S, context=unverified):
            return
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S):
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
