"""Which pods are whose: no two autoscalers may scale the same ones, as each would undo what the other does."""

from __future__ import annotations

from collections.abc import Sequence

from tiphys_apimachinery.labels import Selector, SelectorError
from tiphys_apimachinery.meta import split_key
from tiphys_controller_manager.pods import PodView


class SelectorTrouble(Exception):
    """It can't be told which pods a target has; reason is the word for events and conditions."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Selectors:
    """What each autoscaler's target selected when it was looked at last."""

    def __init__(self) -> None:
        # By the autoscaler's key.
        self._known: dict[str, Selector] = {}

    def choose(self, key: str, text: str, pods: Sequence[PodView]) -> list[PodView]:
        """The pods, of all in its namespace, that the target of an autoscaler selects. Raises SelectorTrouble."""
        if not text:
            self.forget(key)
            raise SelectorTrouble("SelectorRequired", "selector is required")
        try:
            selector = self._known[key] = Selector.parse(text)
        except SelectorError as err:
            self.forget(key)
            words = f"couldn't convert selector into a corresponding internal selector object: {err}"
            raise SelectorTrouble("InvalidSelector", words) from err
        chosen = [pod for pod in pods if selector.matches(pod.labels)]
        others = self._others(key, chosen)
        if others:
            keys = ", ".join(sorted([key, *others]))
            raise SelectorTrouble(
                "AmbiguousSelector", f"pods by selector {text} are controlled by multiple HPAs: [{keys}]"
            )
        return chosen

    def forget(self, key: str) -> None:
        """The autoscaler is gone, or its target selects nothing."""
        self._known.pop(key, None)

    def _others(self, key: str, pods: Sequence[PodView]) -> list[str]:
        namespace = split_key(key)[0]
        rivals = [(other, it) for other, it in self._known.items() if other != key and split_key(other)[0] == namespace]
        return [other for other, selector in rivals if any(selector.matches(pod.labels) for pod in pods)]
