"""The only room that speaks to a container runtime: CRI v1, containerd's own API beside it, and a runtime in memory."""
