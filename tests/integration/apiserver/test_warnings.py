"""Warnings in the answers to requests that are served, and do not do what their author may think."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.apiserver import RunningServer

_CONTAINER = {"name": "c", "image": "i"}


def _pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "a"}, "spec": {"containers": [_CONTAINER], **spec}}


def _container(**more: Any) -> dict[str, Any]:
    return _pod(containers=[{**_CONTAINER, **more}])


_LABEL = "beta.kubernetes.io/os"
_USE = 'deprecated since v1.14; use "kubernetes.io/os" instead'


@pytest.mark.parametrize(
    ("pod", "warning"),
    [
        pytest.param(_pod(), "", id="nothing"),
        pytest.param(_pod(nodeSelector={_LABEL: "linux"}), f"spec.nodeSelector[{_LABEL}]: {_USE}", id="label"),
        pytest.param(
            _container(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
            'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply',
            id="variable",
        ),
        pytest.param(
            _container(ports=[{"containerPort": 80}, {"containerPort": 80, "name": "b"}]),
            "spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            id="port",
        ),
        pytest.param(
            _container(resources={"requests": {"memory": "100m"}}),
            "spec.containers[0].resources.requests[memory]:"
            ' fractional byte value "100m" is invalid, must be an integer',
            id="memory",
        ),
        pytest.param(
            _pod(volumes=[{"name": "v", "gitRepo": {"repository": "r"}}]),
            "spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
            id="volume",
        ),
        pytest.param(
            _pod(topologySpreadConstraints=[
                {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
            ]),
            "spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
            id="selector",
        ),
    ],
)  # fmt: skip
async def test_A33_an_author_of_pods_is_warned(server: RunningServer, pod: dict[str, Any], warning: str) -> None:
    quoted = warning.replace('"', '\\"')
    made = await server.http("POST", "/api/v1/namespaces/default/pods", pod)
    assert made.status == 201, made.body
    assert made.header("Warning") == ([f'299 - "{quoted}"'] if warning else [])


async def test_A33_templates_are_warned_of_where_they_stand(server: RunningServer) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": _pod(nodeSelector={_LABEL: "linux"})["spec"]}
    deployment = {
        "metadata": {"name": "a"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    made = await server.http("POST", "/apis/apps/v1/namespaces/default/deployments", deployment)
    assert made.header("Warning")[0].startswith(f'299 - "spec.template.spec.nodeSelector[{_LABEL}]: ')
    job = {"template": {"spec": {**template["spec"], "restartPolicy": "Never"}}}
    cron = {"metadata": {"name": "a"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job}}}
    made = await server.http("POST", "/apis/batch/v1/namespaces/default/cronjobs", cron)
    assert made.header("Warning")[0].startswith('299 - "spec.jobTemplate.spec.template.spec.nodeSelector[')


@pytest.mark.parametrize(
    ("path", "warning"),
    [
        pytest.param(
            "/api/v1/namespaces/default/endpoints",
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
            id="endpoints",
        ),
        pytest.param("/api/v1/componentstatuses", "v1 ComponentStatus is deprecated in v1.19+", id="statuses"),
    ],
)
async def test_A33_users_of_a_deprecated_kind_are_warned(server: RunningServer, path: str, warning: str) -> None:
    assert (await server.http("GET", path)).header("Warning") == [f'299 - "{warning}"']


async def test_A33_an_ingress_with_the_annotation_of_old_is_served_with_a_warning(server: RunningServer) -> None:
    ingress = {
        "metadata": {"name": "a", "annotations": {"kubernetes.io/ingress.class": "x"}},
        "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}},
    }
    made = await server.http("POST", "/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress)
    assert made.status == 201
    assert "please use 'spec.ingressClassName' instead" in made.header("Warning")[0]
