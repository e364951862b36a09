"""How many pods of a kind are on each row: by selection, and by the terms that they have themselves.

A selection is counted from the first time somebody asks on. Adding a pod then touches one number for each selection
that it is in, which is worked out once for each namespace and set of labels, not for each pod.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiphys_apimachinery.labels import Operator, Selector
from tiphys_scheduler.pod_terms import HeldTerm, Identity, PodTerms, Selection

Counts = NDArray[np.int64]
# Several selections: a pod counts that is in each of them.
Selections = tuple[Selection, ...]
# So many are kept; labels such as a template's hash bring new ones for ever.
_MOST_SELECTIONS = 1024


@dataclass(slots=True, eq=False)
class Column:
    """Counts by row, and their sum. A column is equal to itself alone."""

    counts: Counts
    total: int = 0


@dataclass(slots=True)
class _Group:
    """Pods that look the same to selectors: how many on each row, and the columns that count them."""

    rows: dict[int, int] = field(default_factory=dict)
    columns: list[Column] = field(default_factory=list)


Held = list[tuple[HeldTerm, Column]]
_Key = TypeVar("_Key", Selections, HeldTerm)


class _Index(Generic[_Key]):
    """Columns by what they count, found by the labels of a pod without a look at all of them."""

    def __init__(self, selector_of: Callable[[_Key], Selector]) -> None:
        self._selector_of: Callable[[_Key], Selector] = selector_of
        self.columns: OrderedDict[_Key, Column] = OrderedDict()
        # By one label that a pod must have to be counted; None where no single label is a must.
        self._by_label: dict[tuple[str, str] | None, dict[_Key, Column]] = {}

    def add(self, key: _Key, column: Column) -> None:
        """A column for a key that has none."""
        self.columns[key] = column
        self._by_label.setdefault(self._label(key), {})[key] = column

    def remove(self, key: _Key) -> Column:
        """The column that was the key's."""
        label = self._label(key)
        of_label = self._by_label[label]
        del of_label[key]
        if not of_label:
            del self._by_label[label]
        return self.columns.pop(key)

    def likely(self, who: Identity) -> Iterator[tuple[_Key, Column]]:
        """All that may count the pod, and few others."""
        for label in (None, *who.labels):
            yield from self._by_label.get(label, {}).items()

    def _label(self, key: _Key) -> tuple[str, str] | None:
        for requirement in self._selector_of(key).requirements:
            if requirement.operator in (Operator.EQUALS, Operator.IN) and len(requirement.values) == 1:
                return requirement.key, requirement.values[0]
        return None


class PodGroups:
    """Owned by Columns. `forget` is called when columns that were given out no longer count."""

    def __init__(self, rows: int, forget: Callable[[], None]) -> None:
        self._rows = rows
        self._forget = forget
        self._groups: dict[str, dict[Identity, _Group]] = {}
        self._selections: _Index[Selections] = _Index(lambda key: key[0].selector)
        self._held: _Index[HeldTerm] = _Index(lambda key: key.term.selection.selector)
        self._namespaces: dict[str, Mapping[str, str]] = {}
        # Which held terms a pod is in; made anew when a kind of term comes or goes.
        self._matching: dict[Identity, Held] = {}

    def add(self, row: int, who: Identity, terms: PodTerms, sign: int) -> None:
        """Counts a pod on a row; sign -1 takes it away."""
        in_namespace = self._groups.setdefault(who.namespace, {})
        group = in_namespace.get(who)
        if group is None:
            columns = [c for key, c in self._selections.likely(who) if self._is_in(who, key)]
            group = in_namespace[who] = _Group(columns=columns)
        for column in group.columns:
            column.counts[row] += sign
            column.total += sign
        left = group.rows.get(row, 0) + sign
        if left:
            group.rows[row] = left
        else:
            self._leave(who, row)
        if terms.has_affinity():
            self._hold(row, terms, sign)

    def clear_row(self, row: int) -> None:
        """The node is gone; what was on it is forgotten."""
        for in_namespace in list(self._groups.values()):
            for who, group in [item for item in in_namespace.items() if row in item[1].rows]:
                count = group.rows[row]
                for column in group.columns:
                    column.counts[row] -= count
                    column.total -= count
                self._leave(who, row)
        for held, column in list(self._held.columns.items()):
            column.total -= int(column.counts[row])
            column.counts[row] = 0
            self._drop_if_empty(held, column)

    def count(self, *selections: Selection) -> Column:
        """Pods by row that are in all these selections; kept up to date until `forget` is called."""
        found = self._selections.columns.get(selections)
        if found is not None:
            self._selections.columns.move_to_end(selections)
            return found
        found = Column(np.zeros(self._rows, np.int64))
        for who, group in self._candidates(selections[0]):
            if self._is_in(who, selections):
                group.columns.append(found)
                for row, count in group.rows.items():
                    found.counts[row] += count
                    found.total += count
        if len(self._selections.columns) >= _MOST_SELECTIONS:
            self._drop(list(self._selections.columns)[: _MOST_SELECTIONS // 2])
        self._selections.add(selections, found)
        return found

    def are_mine(self, who: Identity, *selections: Selection) -> bool:
        """Whether a pod is in all of these selections itself."""
        return self._is_in(who, selections)

    def held(self, who: Identity) -> Held:
        """Terms of placed pods whose selection this pod is in, with how many pods of each row have them."""
        if not self._held.columns:
            return []
        found = self._matching.get(who)
        if found is None:
            if len(self._matching) >= _MOST_SELECTIONS:
                self._matching.clear()
            found = self._matching[who] = [
                (held, column)
                for held, column in self._held.likely(who)
                if held.term.selection.matches(who, self._namespaces)
            ]
        return found

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """Labels of a namespace, None when it is gone; True where they changed."""
        if self._namespaces.get(name) == labels:
            return False
        self._namespaces.pop(name, None)
        if labels is not None:
            self._namespaces[name] = labels
        self._matching.clear()
        self._drop([key for key in self._selections.columns if any(s.namespace_selector is not None for s in key)])
        return True

    def grow(self, rows: int) -> None:
        """Every column becomes longer."""
        self._rows = rows
        for column in (*self._selections.columns.values(), *self._held.columns.values()):
            column.counts = np.pad(column.counts, (0, rows - len(column.counts)))

    def _candidates(self, selection: Selection) -> Iterator[tuple[Identity, _Group]]:
        names = selection.namespaces if selection.namespace_selector is None else list(self._groups)
        for name in names:
            yield from self._groups.get(name, {}).items()

    def _leave(self, who: Identity, row: int) -> None:
        in_namespace = self._groups[who.namespace]
        rows = in_namespace[who].rows
        rows.pop(row, None)
        if not rows:
            del in_namespace[who]
        if not in_namespace:
            del self._groups[who.namespace]

    def _hold(self, row: int, terms: PodTerms, sign: int) -> None:
        for held in terms.held:
            column = self._held.columns.get(held)
            if column is None:
                column = Column(np.zeros(self._rows, np.int64))
                self._held.add(held, column)
                self._matching.clear()
            column.counts[row] += sign
            column.total += sign
            self._drop_if_empty(held, column)

    def _drop_if_empty(self, held: HeldTerm, column: Column) -> None:
        if column.total == 0:
            self._held.remove(held)
            self._matching.clear()

    def _is_in(self, who: Identity, selections: Selections) -> bool:
        return all(selection.matches(who, self._namespaces) for selection in selections)

    def _drop(self, keys: Sequence[Selections]) -> None:
        if not keys:
            return
        gone = {id(self._selections.remove(key)) for key in keys}
        for in_namespace in self._groups.values():
            for group in in_namespace.values():
                group.columns = [column for column in group.columns if id(column) not in gone]
        self._forget()
