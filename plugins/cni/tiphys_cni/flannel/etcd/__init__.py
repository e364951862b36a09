"""Leases of subnets in etcd, as flannel keeps them without Kubernetes."""
