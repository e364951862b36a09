"""forward: sends what is not the cluster's to other resolvers, one after another."""

from __future__ import annotations

from collections.abc import Sequence

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode

from tiphys_component.log import get_logger

_log = get_logger("cluster-dns.forward")
_TIMEOUT_S = 2.0


class Forward:
    """Upstream resolvers as (address, port); with none of them every name is refused by the chain."""

    name = "forward"

    def __init__(self, upstreams: Sequence[tuple[str, int]], *, timeout_s: float = _TIMEOUT_S) -> None:
        self._upstreams = tuple(upstreams)
        self._timeout_s = timeout_s

    async def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        """The first upstream's answer; SERVFAIL where none answers."""
        if not self._upstreams:
            return None
        for address, port in self._upstreams:
            try:
                found, _ = await dns.asyncquery.udp_with_fallback(query, address, self._timeout_s, port)
            except (dns.exception.DNSException, OSError) as err:
                _log.warning("upstream does not answer", upstream=f"{address}:{port}", err=str(err))
                continue
            return found
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
        return response


def resolv_conf_servers(text: str) -> list[tuple[str, int]]:
    """The nameserver lines of a resolv.conf."""
    words = (line.split() for line in text.splitlines())
    return [(w[1], 53) for w in words if len(w) >= 2 and w[0] == "nameserver"]
