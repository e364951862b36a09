"""The controllers there are, in the order in which they start."""

from __future__ import annotations

from tiphys_controller_manager.controllers.deployment.controller import DeploymentController
from tiphys_controller_manager.controllers.replicaset.controller import ReplicaSetController
from tiphys_controller_manager.frame import ControllerSpec
from tiphys_controller_manager.options import Options


def controllers(options: Options) -> tuple[ControllerSpec, ...]:
    """Every controller by the name that Kubernetes gives it. Outside packages have no entry here yet."""
    return (
        ControllerSpec(
            "deployment-controller", DeploymentController, options.concurrent_deployment_syncs, aliases=("deployment",)
        ),
        ControllerSpec(
            "replicaset-controller", ReplicaSetController, options.concurrent_replicaset_syncs, aliases=("replicaset",)
        ),
    )
