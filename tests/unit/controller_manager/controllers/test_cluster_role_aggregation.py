"""Aggregated ClusterRoles: whose rules they have, and how soon."""

from __future__ import annotations

from typing import Any

from tests.unit.controller_manager.harness import House, house
from tiphys.api.rbac.v1 import rbac_pb2
from tiphys_controller_manager.controllers.cluster_role_aggregation.plan import rules_for

CONTROLLER = "clusterrole-aggregation-controller"
ClusterRole = rbac_pb2.ClusterRole


def role(name: str, *verbs: str, **labels: str) -> ClusterRole:
    """A role with a rule for each verb."""
    made = ClusterRole()
    made.metadata.name = name
    made.metadata.labels.update(labels)
    for verb in verbs:
        made.rules.add(verbs=[verb], apiGroups=[""], resources=["pods"])
    return made


def aggregated(name: str, label: str, **labels: str) -> ClusterRole:
    made = role(name, **labels)
    made.aggregationRule.clusterRoleSelectors.add().matchLabels[label] = "true"
    return made


def verbs(found: Any) -> list[str]:
    return [verb for rule in found for verb in rule.verbs]


def test_B36_rules_come_by_the_names_of_their_roles_and_each_once() -> None:
    everyone = [
        role("b", "list", "get", to_admin="true"),
        role("a", "get", to_admin="true"),
        role("c", "delete", to_view="true"),
    ]
    assert verbs(rules_for(aggregated("admin", "to_admin"), everyone)) == ["get", "list"]


def test_B36_a_role_is_no_source_of_itself_and_without_sources_has_no_rules() -> None:
    own = aggregated("admin", "to_admin", to_admin="true")
    own.rules.extend(role("x", "get").rules)
    assert rules_for(own, [own]) == []


def test_B36_an_empty_selector_takes_all_and_one_of_several_is_enough() -> None:
    made = aggregated("admin", "to_admin")
    other = role("c", "delete", to_view="true")
    assert rules_for(made, [other]) == []
    made.aggregationRule.clusterRoleSelectors.add()
    assert verbs(rules_for(made, [other])) == ["delete"]


async def rules(h: House, name: str) -> list[str]:
    await h.settle()
    return verbs(h.client.stored(ClusterRole, name, "").rules)


async def test_B36_a_new_labelled_role_shows_in_admin_at_once_and_through_edit_too() -> None:
    async with house(CONTROLLER) as h:
        await h.client.create(aggregated("edit", "to_edit", to_admin="true"))
        await h.client.create(aggregated("admin", "to_admin"))
        assert await rules(h, "admin") == []
        await h.client.create(role("mine", "watch", to_edit="true"))
        assert await rules(h, "edit") == ["watch"]
        assert await rules(h, "admin") == ["watch"]
        stored = h.client.stored(ClusterRole, "mine", "")
        del stored.metadata.labels["to_edit"]
        await h.client.update(stored)
        assert (await rules(h, "edit"), await rules(h, "admin")) == ([], [])


async def test_B36_rules_written_by_hand_into_an_aggregated_role_are_undone() -> None:
    async with house(CONTROLLER) as h:
        await h.client.create(role("mine", "watch", to_edit="true"))
        await h.client.create(aggregated("edit", "to_edit"))
        assert await rules(h, "edit") == ["watch"]
        stored = h.client.stored(ClusterRole, "edit", "")
        stored.rules.add(verbs=["*"], apiGroups=["*"], resources=["*"])
        stored.metadata.labels["note"] = "kept"
        await h.client.update(stored)
        assert await rules(h, "edit") == ["watch"]
        assert h.client.stored(ClusterRole, "edit", "").metadata.labels["note"] == "kept"


async def test_B36_what_is_right_is_not_written() -> None:
    async with house(CONTROLLER) as h:
        await h.client.create(role("mine", "watch", to_edit="true"))
        await h.client.create(aggregated("edit", "to_edit"))
        await h.settle()
        before = h.client.stored(ClusterRole, "edit", "").metadata.resourceVersion
        await h.client.create(role("other", "delete"))
        await h.settle()
        assert h.client.stored(ClusterRole, "edit", "").metadata.resourceVersion == before
