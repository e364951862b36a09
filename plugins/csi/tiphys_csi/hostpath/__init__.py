"""The hostpath driver: volumes are folders of the node, for one node each; real enough to hold data for good."""
