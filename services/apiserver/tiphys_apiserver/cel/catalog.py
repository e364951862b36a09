"""All functions that expressions may call: the one table of tables."""

from __future__ import annotations

from typing import Final

from tiphys_apiserver.cel.library import authorizer, collections, kubernetes, standard, strings
from tiphys_apiserver.cel.overloads import functions

# By name, which may have dots in it; and methods by theirs.
FUNCTIONS, METHODS = functions(
    (*standard.ENTRIES, *strings.ENTRIES, *collections.ENTRIES, *kubernetes.ENTRIES, *authorizer.ENTRIES)
)
# Names before the dot of such functions: what stands there is no variable.
NAMESPACES: Final = frozenset(name.rpartition(".")[0] for name in FUNCTIONS if "." in name)
