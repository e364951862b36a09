"""Rules as values, and the nftables text that takes the kernel from one rule set to the next. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; `hook` is the line that ties a base chain to the kernel, empty for others."""

    rules: tuple[str, ...]
    hook: str = ""


@dataclass(frozen=True, slots=True)
class Map:
    """A verdict map or a set: its type line, and its elements with what each leads to (empty in a set)."""

    kind: str
    elements: Mapping[str, str] = field(default_factory=dict)
    # The kernel fills these (affinity); what is in them is not ours to write.
    is_dynamic: bool = False


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One table: everything it holds, by name."""

    family: str
    table: str
    chains: Mapping[str, Chain]
    maps: Mapping[str, Map]

    @property
    def where(self) -> str:
        """Family and name of the table."""
        return f"{self.family} {self.table}"


def _keyword(target: Map) -> str:
    return "map" if ":" in target.kind else "set"


def _element(key: str, verdict: str) -> str:
    return f"{key} : {verdict}" if verdict else key


def replace_all(wanted: RuleSet) -> str:
    """Text that replaces the whole table at once, whatever was in it."""
    lines = [f"add table {wanted.where}", f"delete table {wanted.where}", f"table {wanted.where} {{"]
    for name, target in wanted.maps.items():
        lines += [f"  {_keyword(target)} {name} {{", *(f"    {line}" for line in target.kind.split("\n"))]
        if target.elements:
            lines.append("    elements = {")
            lines += [f"      {_element(k, v)}," for k, v in sorted(target.elements.items())]
            lines.append("    }")
        lines.append("  }")
    for name, chain in wanted.chains.items():
        lines += [f"  chain {name} {{", *([f"    {chain.hook}"] if chain.hook else [])]
        lines += [f"    {rule}" for rule in chain.rules]
        lines.append("  }")
    return "\n".join([*lines, "}", ""])


def change(before: RuleSet, wanted: RuleSet) -> str:
    """Text that changes only what differs; empty where nothing does. Both must be of one table.

    The order keeps every reference valid inside the transaction: chains appear before anything leads
    to them, and go when nothing does any more.
    """
    return "".join(f"{line}\n" for line in _change(before, wanted))


def _change(before: RuleSet, wanted: RuleSet) -> Iterator[str]:
    where = wanted.where
    for name, target in wanted.maps.items():
        if name not in before.maps:
            body = "; ".join(target.kind.split("\n"))
            yield f"add {_keyword(target)} {where} {name} {{ {body}; }}"
    for name, chain in wanted.chains.items():
        if name not in before.chains:
            yield f"add chain {where} {name}" + (f" {{ {chain.hook} }}" if chain.hook else "")
    for name, chain in wanted.chains.items():
        old = before.chains.get(name)
        if old is not None and old.rules == chain.rules:
            continue
        if old is not None:
            yield f"flush chain {where} {name}"
        for rule in chain.rules:
            yield f"add rule {where} {name} {rule}"
    yield from _change_elements(before, wanted)
    gone = [name for name in before.chains if name not in wanted.chains]
    for name in gone:
        yield f"flush chain {where} {name}"
    for name in gone:
        yield f"delete chain {where} {name}"
    for name, target in before.maps.items():
        if name not in wanted.maps:
            yield f"delete {_keyword(target)} {where} {name}"


def _change_elements(before: RuleSet, wanted: RuleSet) -> Iterator[str]:
    where = wanted.where
    for name, target in wanted.maps.items():
        if target.is_dynamic:
            continue
        old = before.maps[name].elements if name in before.maps else {}
        stale = sorted(k for k, v in old.items() if target.elements.get(k, None) != v)
        fresh = sorted(k for k, v in target.elements.items() if old.get(k, None) != v)
        if stale:
            yield f"delete element {where} {name} {{ {', '.join(stale)} }}"
        if fresh:
            elements = ", ".join(_element(k, target.elements[k]) for k in fresh)
            yield f"add element {where} {name} {{ {elements} }}"
