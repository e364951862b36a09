"""kubernetes: answers for the cluster's zone from what the zone holds."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from tiphys_cluster_dns.zone import Record, Zone

# Short, as pods come and go; long enough that a burst of connections asks once.
TTL_S = 5
_LONGEST_CHAIN = 8


class Kubernetes:
    """The cluster's zone; other names go on to the next plugin, and so do targets of ExternalName."""

    name = "kubernetes"

    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    async def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        """An authoritative response for names of the zone."""
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        if question.rdclass != dns.rdataclass.IN or not self._zone.is_inside(name):
            return None
        kind = dns.rdatatype.to_text(question.rdtype)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA
        if name == self._zone.domain and kind in ("SOA", "NS"):
            response.answer.append(self._soa() if kind == "SOA" else self._ns())
            return response
        found = self._zone.lookup(name, kind)
        if not found:
            if found is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
            response.authority.append(self._soa())
            return response
        _add(response, question.name, found)
        self._follow(response, found, kind)
        self._add_targets(response, found)
        return response

    def _follow(self, response: dns.message.Message, records: tuple[Record, ...], kind: str) -> None:
        """Adds what a CNAME inside the zone leads to."""
        for _ in range(_LONGEST_CHAIN):
            if kind == "CNAME" or records[0].kind != "CNAME":
                return
            target = records[0].value.rstrip(".").lower()
            records = self._zone.lookup(target, kind) or ()
            if not records:
                return
            _add(response, dns.name.from_text(target), records)

    def _add_targets(self, response: dns.message.Message, records: tuple[Record, ...]) -> None:
        """Beside SRV records, the addresses of what they name."""
        for target in dict.fromkeys(r.value.split()[3] for r in records if r.kind == "SRV"):
            name = target.rstrip(".")
            addresses = (self._zone.lookup(name, "A") or ()) + (self._zone.lookup(name, "AAAA") or ())
            _add(response, dns.name.from_text(name), addresses, section=response.additional)

    def _soa(self) -> dns.rrset.RRset:
        domain = self._zone.domain
        value = f"ns.dns.{domain}. hostmaster.{domain}. 1 7200 1800 86400 {TTL_S}"
        return dns.rrset.from_text(f"{domain}.", TTL_S, "IN", "SOA", value)

    def _ns(self) -> dns.rrset.RRset:
        return dns.rrset.from_text(f"{self._zone.domain}.", TTL_S, "IN", "NS", f"ns.dns.{self._zone.domain}.")


def _add(
    response: dns.message.Message,
    name: dns.name.Name,
    records: tuple[Record, ...],
    *,
    section: list[dns.rrset.RRset] | None = None,
) -> None:
    for kind in dict.fromkeys(r.kind for r in records):
        values = [r.value for r in records if r.kind == kind]
        rrset = dns.rrset.from_text(name, TTL_S, "IN", kind, *values)
        (response.answer if section is None else section).append(rrset)
