"""A page that is served: each Site becomes a ConfigMap with its text and a Deployment that serves it."""

from dataclasses import dataclass

from tiphys.api.apps.v1.apps_pb2 import Deployment
from tiphys.api.core.v1.config_map_pb2 import ConfigMap
from tiphys_sdk.operators.app import Custom, Operator, Work


@dataclass(frozen=True)
class SiteSpec:
    """What a page says, and how often it is served."""

    text: str
    replicas: int = 1


class Site(Custom[SiteSpec], group="example.com"):
    """A page that is served."""


operator = Operator("site-operator")


@operator.reconciles(Site, owns=(ConfigMap, Deployment))
async def reconcile(site: Site, work: Work) -> None:
    """Bring a site's children nearer to what is wanted."""
    labels, mounts = {"site": site.metadata.name}, [{"name": "text", "mountPath": "/www"}]
    text = await work.apply({"kind": "ConfigMap", "data": {"index.html": site.spec.text}})
    page = {"name": "text", "configMap": {"name": text.metadata.name}}
    server = {"name": "httpd", "image": "busybox", "imagePullPolicy": "IfNotPresent", "volumeMounts": mounts}
    server["command"] = ["httpd", "-f", "-h", "/www"]
    template = {"metadata": {"labels": labels}, "spec": {"containers": [server], "volumes": [page]}}
    spec = {"replicas": site.spec.replicas, "selector": {"matchLabels": labels}, "template": template}
    work.status(ready=(await work.apply({"kind": "Deployment", "spec": spec})).status.readyReplicas)


if __name__ == "__main__":
    raise SystemExit(operator.main())
