"""From a pod to what the runtime is asked for: configs of sandboxes and containers, images, hooks, cgroups."""
