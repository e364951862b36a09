"""Configuration files: what they may say, what is wrong in them, and what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.scheduler.objects import node, pod_message
from tests.unit.scheduler.world import world
from tiphys_component.app import StartupError
from tiphys_component.options import parse as parse_options
from tiphys_scheduler.configuration.load import configuration_of, parse
from tiphys_scheduler.configuration.model import Configuration, ProfileConfig
from tiphys_scheduler.configuration.policy import DEFAULT_PREDICATES, DEFAULT_PRIORITIES, AlgorithmProviders
from tiphys_scheduler.configuration.reader import ConfigurationError
from tiphys_scheduler.framework.configured import configured
from tiphys_scheduler.framework.profile import Profile
from tiphys_scheduler.framework.registry import DEFAULT_PROFILE
from tiphys_scheduler.options import Options

HEAD = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"


def read(text: str) -> Configuration:
    return parse((HEAD + text).encode())


def filters(profile: Profile) -> list[str]:
    return [plugin.name for plugin in profile.filters]


def scores(profile: Profile) -> dict[str, int]:
    return {plugin.name: weight for plugin, weight in profile.scores}


def test_C27_a_file_with_everything_of_the_version_is_read() -> None:
    found = read("""
parallelism: 8
percentageOfNodesToScore: 30
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
leaderElection: {leaderElect: false}
clientConnection: {kubeconfig: /x}
enableProfiling: true
profiles:
- schedulerName: packing
  percentageOfNodesToScore: 50
  plugins:
    score:
      disabled: [{name: NodeResourcesBalancedAllocation}]
      enabled: [{name: NodeResourcesFit, weight: 7}]
    multiPoint:
      disabled: [{name: ImageLocality}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      apiVersion: kubescheduler.config.k8s.io/v1
      kind: NodeResourcesFitArgs
      ignoredResourceGroups: [example.com]
      scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 3}]}
  - name: PodTopologySpread
    args:
      defaultingType: List
      defaultConstraints:
      - {maxSkew: 2, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}
  - name: InterPodAffinity
    args: {hardPodAffinityWeight: 5, ignorePreferredTermsOfExistingPods: true}
  - name: DefaultPreemption
    args: {minCandidateNodesPercentage: 10, minCandidateNodesAbsolute: 100}
- schedulerName: default-scheduler
extenders:
- urlPrefix: http://127.0.0.1:1/
  filterVerb: filter
  httpTimeout: 100ms
  managedResources: [{name: example.com/fpga, ignoredByScheduler: true}]
""")
    packing = found.profiles[0]
    assert (found.backoff.initial_s, found.backoff.longest_s) == (2, 20)
    assert [p.name for p in found.profiles] == ["packing", "default-scheduler"]
    assert (packing.args.scored, packing.args.ignored_groups) == ((("cpu", 3),), ("example.com",))
    assert (packing.args.hard_pod_affinity_weight, packing.args.has_system_spread) == (5, False)
    assert (found.extenders[0].timeout_s, dict(found.extenders[0].managed)) == (0.1, {"example.com/fpga": True})
    made = scores(configured(DEFAULT_PROFILE, packing))
    assert made["NodeResourcesFit"] == 7
    assert "NodeResourcesBalancedAllocation" not in made
    assert "ImageLocality" not in made


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("parallelism: many\n", ["parallelism: Invalid value: 'many': must be a whole number"]),
        ("percentageOfNodesToScore: 101\n", ["percentageOfNodesToScore: Invalid value: 101: must be 0 to 100"]),
        ("colour: red\n", ['colour: unknown field "colour"']),
        (
            "podInitialBackoffSeconds: 9\npodMaxBackoffSeconds: 3\n",
            ["podMaxBackoffSeconds: Invalid value: 3: must not be less than podInitialBackoffSeconds (9)"],
        ),
        (
            "profiles:\n- {schedulerName: a}\n- {schedulerName: a}\n",
            ["profiles[1].schedulerName: Invalid value: 'a': is the name of another profile"],
        ),
        (
            "profiles:\n- pluginConfig:\n  - {name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}\n",
            ["profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101: must be 0 to 100"],
        ),
        (
            "profiles:\n- pluginConfig:\n  - {name: Nonsense, args: {}}\n- {schedulerName: b, plugin: {}}\n",
            [
                "profiles[0].pluginConfig[0].name: Invalid value: 'Nonsense': is no plugin with arguments",
                'profiles[1].plugin: unknown field "plugin"',
            ],
        ),
        (
            "profiles:\n- pluginConfig:\n  - {name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}\n",
            ["profiles[0].pluginConfig[0].args.scoringStrategy.type: Invalid value: 'Best': must be one of"],
        ),
        ("extenders:\n- {urlPrefix: nowhere}\n", ["extenders[0].urlPrefix: Invalid value: 'nowhere': must be a URL"]),
    ],
)
def test_C27_faults_name_field_and_value_and_come_all_at_once(text: str, messages: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    for message in messages:
        assert message in str(caught.value)


def test_C27_an_unknown_plugin_is_refused_by_name() -> None:
    found = read("profiles:\n- plugins: {filter: {enabled: [{name: Nonsense}]}}\n")
    with pytest.raises(
        ConfigurationError, match=r'plugins\.filter\.enabled: Invalid value: "Nonsense": no such plugin'
    ):
        configured(DEFAULT_PROFILE, found.profiles[0])


def test_C27_a_file_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="kind: Invalid value: 'Pod'"):
        parse(b"kind: Pod")


def test_C27_a_missing_file_is_told_at_the_start() -> None:
    options = parse_options(Options, ["--kubeconfig=x", "--config=/does/not/exist"])
    with pytest.raises(StartupError, match="/does/not/exist"):
        configuration_of(options)


@pytest.mark.parametrize(
    ("disabled", "enabled", "expected"),
    [
        ("*", ("NodeName", "NodePorts"), ["NodeName", "NodePorts"]),
        ("NodePorts", (), [name for name in filters(DEFAULT_PROFILE) if name != "NodePorts"]),
    ],
    ids=["everything but these", "one less"],
)
def test_C10_filters_are_what_the_profile_says(disabled: str, enabled: tuple[str, ...], expected: list[str]) -> None:
    listed = ", ".join(f"{{name: {name}}}" for name in enabled)
    text = f'profiles:\n- plugins: {{filter: {{disabled: [{{name: "{disabled}"}}], enabled: [{listed}]}}}}\n'
    assert filters(configured(DEFAULT_PROFILE, read(text).profiles[0])) == expected


def test_C10_the_profile_of_kubernetes_1_2_has_just_its_five_predicates() -> None:
    made = configured(DEFAULT_PROFILE, AlgorithmProviders().profile("v1.2"))
    assert filters(made) == ["NodePorts", "NodeResourcesFit", "VolumeRestrictions", "NodeAffinity", "NodeName"]
    assert DEFAULT_PREDICATES == (
        "PodFitsPorts",
        "PodFitsResources",
        "NoDiskConflict",
        "MatchNodeSelector",
        "HostName",
    )


async def test_C2_a_provider_registered_by_name_places_pods() -> None:
    providers = AlgorithmProviders()
    name = providers.register("mine", ["PodFitsResources"], ["LeastRequestedPriority", "EqualPriority"])
    config = Configuration((providers.profile(name),))
    # Without PodToleratesNodeTaints nobody minds the taint.
    tainted = node("roomy", cpu="8", taints=[("team", "red", "NoSchedule")])
    async with world(tainted, node("small", cpu="2"), config=config) as found:
        await found.client.create(pod_message("p", cpu="1"))
        await found.until(lambda: found.node_of("p") == "roomy")


@pytest.mark.parametrize(
    ("predicates", "priorities", "message"),
    [
        (["Nonsense"], [], 'Predicate type not found for "Nonsense"'),
        ([], ["Nonsense"], 'Priority type not found for "Nonsense"'),
    ],
)
def test_C2_a_provider_of_unknown_keys_is_refused(predicates: list[str], priorities: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AlgorithmProviders().register("mine", predicates, priorities)


def test_C2_a_provider_that_nobody_registered_is_refused() -> None:
    options = parse_options(Options, ["--kubeconfig=x", "--algorithm-provider=Nobody"])
    with pytest.raises(StartupError, match='"Nobody": has not been registered'):
        configuration_of(options)


def test_C2_a_policy_without_lists_has_the_defaults_of_then() -> None:
    found = parse(b'{"kind": "Policy", "apiVersion": "v1"}')
    assert scores(configured(DEFAULT_PROFILE, found.profiles[0])) == {
        "NodeResourcesFit": 1,
        "NodeResourcesBalancedAllocation": 1,
        "PodTopologySpread": 1,
    }
    assert len(DEFAULT_PRIORITIES) == 3


LABELS = b"""{"kind": "Policy", "apiVersion": "v1", "predicates": [{"name": "PodFitsResources"},
 {"name": "OnlyWithDisk", "argument": {"labelsPresence": {"labels": ["disk"], "presence": true}}},
 {"name": "NotRetired", "argument": {"labelsPresence": {"labels": ["retired"], "presence": false}}}]}"""


async def test_C7_labels_of_nodes_are_demanded_and_forbidden_as_by_affinity() -> None:
    nodes = (
        node("bare"),
        node("good", labels={"disk": "any"}),
        node("old", cpu="64", labels={"disk": "any", "retired": ""}),
    )
    message = pod_message("by-affinity", cpu="1")
    terms = message.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms.add()
    terms.matchExpressions.add(key="disk", operator="Exists")
    terms.matchExpressions.add(key="retired", operator="DoesNotExist")
    async with world(*nodes, config=parse(LABELS)) as found:
        await found.client.create(pod_message("p", cpu="1"))
        await found.until(lambda: found.node_of("p") == "good")
    async with world(*nodes) as found:
        await found.client.create(message)
        await found.until(lambda: found.node_of("by-affinity") == "good")


async def test_C27_each_profile_places_the_pods_that_name_it() -> None:
    config = read("""
profiles:
- schedulerName: default-scheduler
- schedulerName: packing
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated}}
  plugins:
    score:
      disabled: [{name: "*"}]
      enabled: [{name: NodeResourcesFit}]
- schedulerName: racked
  pluginConfig:
  - name: NodeAffinity
    args:
      addedAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: rack, operator: In, values: [r9]}]}]
""")
    nodes = (node("used"), node("empty"), node("rack", labels={"rack": "r9"}, cpu="1"))
    async with world(*nodes, config=config) as found:
        await found.client.create(pod_message("first", cpu="2", memory="4Gi", nodeName="used"))
        await found.until(lambda: bool(found.scheduler.cache.node_of("default/first")))
        for name, scheduler in (("spread", "default-scheduler"), ("packed", "packing"), ("racked", "racked")):
            await found.client.create(pod_message(name, cpu="1", memory="2Gi", schedulerName=scheduler))
        await found.until(lambda: all(found.node_of(name) for name in ("spread", "packed", "racked")))
        assert (found.node_of("spread"), found.node_of("packed"), found.node_of("racked")) == ("empty", "used", "rack")


async def test_C27_nodes_that_a_configuration_prefers_are_preferred_by_every_pod() -> None:
    config = read("""
profiles:
- pluginConfig:
  - name: NodeAffinity
    args:
      addedAffinity:
        preferredDuringSchedulingIgnoredDuringExecution:
        - {weight: 9, preference: {matchExpressions: [{key: disk, operator: In, values: [ssd]}]}}
  plugins:
    score:
      enabled: [{name: NodeAffinity, weight: 50}]
""")
    async with world(node("a"), node("b", labels={"disk": "ssd"}), node("c"), config=config) as found:
        for number in range(3):
            await found.client.create(pod_message(f"p{number}", cpu="500m"))
        await found.until(lambda: [found.node_of(f"p{number}") for number in range(3)] == ["b", "b", "b"])


def test_C27_the_name_flag_names_the_only_profile() -> None:
    options = parse_options(Options, ["--kubeconfig=x", "--scheduler-name=mine"])
    assert configuration_of(options) == Configuration((ProfileConfig("mine"),))


def test_C27_a_file_is_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(HEAD + "profiles: [{schedulerName: from-file}]\n")
    options = parse_options(Options, ["--kubeconfig=x", f"--config={path}"])
    assert [profile.name for profile in configuration_of(options).profiles] == ["from-file"]
