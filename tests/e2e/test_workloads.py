"""The kinds of work on real containers: all four at once, a rollout that nobody notices, and names of old."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, Kubectl, eventually

# One store is enough: the controllers do not see it.
pytestmark = [pytest.mark.containerd, pytest.mark.parametrize("cluster", ["sqlite"], indirect=True, scope="session")]

LOOP = "trap exit TERM; while true; do sleep 1; done"
FOUR = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: long-running, labels: {{of: four}}}}
spec:
  selector: {{matchLabels: {{app: long-running}}}}
  template:
    metadata: {{labels: {{app: long-running, of: four}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, "{LOOP}"]}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: batch, labels: {{of: four}}}}
spec:
  completions: 2
  parallelism: 2
  template:
    metadata: {{labels: {{app: batch, of: four}}}}
    spec:
      restartPolicy: Never
      containers:
      - {{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: ["true"]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: node-daemon, labels: {{of: four}}}}
spec:
  selector: {{matchLabels: {{app: node-daemon}}}}
  template:
    metadata: {{labels: {{app: node-daemon, of: four}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, "{LOOP}"]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: stateful, labels: {{of: four}}}}
spec:
  serviceName: stateful
  replicas: 2
  selector: {{matchLabels: {{app: stateful}}}}
  template:
    metadata: {{labels: {{app: stateful, of: four}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {{name: main, image: busybox, imagePullPolicy: IfNotPresent, command: [sh, -c, "{LOOP}"]}}
"""
# Whoever is told to end answers on until proxies have heard of it.
BUSY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  replicas: 4
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: httpd
        image: tiphys.dev/httpd:1
        imagePullPolicy: IfNotPresent
        env: [{name: ROUND, value: "1"}]
        ports: [{name: http, containerPort: 8080}]
        lifecycle: {preStop: {sleep: {seconds: 3}}}
        readinessProbe:
          httpGet: {path: /, port: http}
          periodSeconds: 1
---
apiVersion: v1
kind: Service
metadata: {name: busy}
spec:
  selector: {app: busy}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Pod
metadata: {name: customer}
spec:
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - name: main
    image: busybox
    imagePullPolicy: IfNotPresent
    command:
    - sh
    - -c
    - |
      trap exit TERM
      until timeout 2 wget -q -O /dev/null http://busy/; do sleep 0.2; done
      while true; do
        if timeout 2 wget -q -O /dev/null http://busy/; then echo served; else echo failed; fi
        sleep 0.05
      done
"""


@pytest.fixture
def four(cluster: Cluster) -> Iterator[Kubectl]:
    """One manifest of each kind."""
    kubectl = cluster.kubectl()
    kubectl("apply", "-f", "-", stdin=FOUR)
    yield kubectl
    kubectl("delete", "deployment,job,daemonset,statefulset", "-l", "of=four", "--wait=true", "--timeout=60s")
    kubectl("wait", "--for=delete", "pod", "-l", "of=four", "--timeout=60s", check=False)


def test_B38_all_four_kinds_of_work_run_on_real_containers(four: Kubectl) -> None:
    for name in ("deployment/long-running", "daemonset/node-daemon", "statefulset/stateful"):
        four("rollout", "status", name, "--timeout=120s")
    four("wait", "--for=condition=Complete", "job/batch", "--timeout=120s")
    found = four.json("get", "pods", "-l", "of=four")["items"]
    pods = {pod["metadata"]["name"]: pod["status"]["phase"] for pod in found}
    assert {"stateful-0", "stateful-1"} <= set(pods)
    done = sorted(phase for name, phase in pods.items() if name.startswith("batch-"))
    assert done == ["Succeeded", "Succeeded"]
    running = [name for name, phase in pods.items() if phase == "Running"]
    assert len(running) == 1 + 1 + 2
    assert "ok" in four("exec", "stateful-1", "--", "echo", "ok")


def test_B6_a_service_answers_every_request_while_its_deployment_rolls(cluster: Cluster) -> None:
    kubectl = cluster.kubectl()
    try:
        kubectl("apply", "-f", "-", stdin=BUSY)
        kubectl("rollout", "status", "deployment/busy", "--timeout=120s")
        eventually(lambda: "served" in kubectl("logs", "customer", check=False))
        kubectl("set", "env", "deployment/busy", "ROUND=2")
        kubectl("rollout", "status", "deployment/busy", "--timeout=180s")
        # Also while the last of the old pods are on their way out.
        eventually(lambda: len(kubectl("get", "pods", "-l", "app=busy", "-o", "name").split()) == 4)
        said = kubectl("logs", "customer").split()
        assert said.count("failed") == 0
        assert said.count("served") > 20
    finally:
        kubectl("delete", "deployment/busy", "service/busy", "pod/customer", "--ignore-not-found", "--timeout=60s")


def test_B14_the_name_that_stateful_sets_once_had_is_not_known(kubectl: Kubectl) -> None:
    said = kubectl("get", "petsets", check=False)
    assert 'the server doesn\'t have a resource type "petsets"' in said
