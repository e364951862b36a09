"""The HTTP door: routes, content types, watch streams, upgrades."""
