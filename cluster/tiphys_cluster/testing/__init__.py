"""A whole cluster in one process, for tests: real control plane, nodes without a runtime, a clock of one's own."""

from tiphys_cluster.testing.cluster import Cluster as Cluster
from tiphys_cluster.testing.cluster import cluster as cluster
