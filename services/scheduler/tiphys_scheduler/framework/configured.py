"""Makes a profile out of the table of plugins and what a configuration changes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tiphys_scheduler.configuration.model import PluginSet, ProfileConfig
from tiphys_scheduler.configuration.reader import ConfigurationError
from tiphys_scheduler.framework.interface import Plugin
from tiphys_scheduler.framework.profile import Profile

# The points as a file names them, and as a profile does.
_FIELDS = {
    "preEnqueue": "pre_enqueues",
    "preFilter": "pre_filters",
    "filter": "filters",
    "postFilter": "post_filters",
    "preScore": "pre_scores",
    "reserve": "reserves",
    "permit": "permits",
    "preBind": "pre_binds",
    "bind": "binds",
    "postBind": "post_binds",
}
# Plugins of Kubernetes that are part of others here, or have nothing to do: to name them changes nothing.
_KNOWN = frozenset({"DefaultBinder", "PrioritySort", "VolumeZone", "DynamicResources", "NodeDeclaredFeatures"})


def configured(every: Profile, config: ProfileConfig, optional: frozenset[str] = frozenset()) -> Profile:
    """The profile of a configuration; `every` has all plugins there are, of which the optional ones must be enabled.

    Raises ConfigurationError for a plugin that nobody knows.
    """
    known = every.plugins()
    for point, plugins in config.plugins.items():
        for listed in plugins.enabled:
            if listed.name not in known and listed.name not in _KNOWN:
                raise ConfigurationError(
                    f'profile "{config.name}": plugins.{point}.enabled: Invalid value: "{listed.name}": no such plugin'
                )
    changes: dict[str, Any] = {"name": config.name}
    everywhere = config.plugins.get("multiPoint", PluginSet())
    for point, field in _FIELDS.items():
        given: Sequence[Plugin] = getattr(every, field)
        table = {plugin.name: plugin for plugin in given}
        names = _names(tuple(table), (everywhere, config.plugins.get(point, PluginSet())), optional)
        changes[field] = tuple(table[name] for name in names)
    weights = {plugin.name: weight for plugin, weight in every.scores}
    scorers = {plugin.name: plugin for plugin, _ in every.scores}
    sets = (everywhere, config.plugins.get("score", PluginSet()))
    names = _names(tuple(scorers), sets, optional)
    weights.update({e.name: e.weight for s in sets for e in s.enabled if e.weight})
    changes["scores"] = tuple((scorers[name], weights[name]) for name in names)
    return replace(every, **changes)


def _names(given: tuple[str, ...], sets: Sequence[PluginSet], optional: frozenset[str]) -> list[str]:
    """The plugins of a point in order: the defaults less the disabled, then the enabled; each set in its turn."""
    names = [name for name in given if name not in optional]
    for plugins in sets:
        if "*" in plugins.disabled:
            names = []
        names = [name for name in names if name not in plugins.disabled]
        names += [e.name for e in plugins.enabled if e.name in given and e.name not in names]
    return names


def by_name(profiles: Sequence[Profile]) -> Mapping[str, Profile]:
    """Profiles by the schedulerName of their pods."""
    return {profile.name: profile for profile in profiles}
