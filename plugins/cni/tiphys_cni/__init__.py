"""CNI plugins of Tiphys: launcher, resident service, bridge, host-local, loopback."""
