"""The HTTPS face of the kubelet: logs, exec, attach, port-forward, pods, metrics."""
