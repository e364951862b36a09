"""The functions that expressions may call, put together from tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from tiphys_apimachinery.cel.library import collections, kubernetes, standard, strings
from tiphys_apimachinery.cel.overloads import Entry, Function, functions


@dataclass(frozen=True, slots=True, eq=False)
class Library:
    """Functions by name, which may have dots in it; methods by theirs.

    namespaces are the names before the dot of such functions: what stands there is no variable.
    """

    functions: Mapping[str, Function]
    methods: Mapping[str, Function]
    namespaces: frozenset[str]


def library(*tables: Iterable[Entry]) -> Library:
    """What the tables hold."""
    plain, methods = functions(chain.from_iterable(tables))
    return Library(plain, methods, frozenset(name.rpartition(".")[0] for name in plain if "." in name))


# CEL's own, cel-go's extensions and Kubernetes', as every component's expressions have them.
COMMON: Final = (standard.ENTRIES, strings.ENTRIES, collections.ENTRIES, kubernetes.ENTRIES)
