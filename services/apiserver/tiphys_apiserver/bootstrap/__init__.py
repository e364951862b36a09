"""What a cluster has before its first user: namespaces, priority classes, RBAC policy, the kubernetes Service."""
