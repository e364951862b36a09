"""The bench for container runtimes: what a kubelet relies on, over the CRI socket."""
