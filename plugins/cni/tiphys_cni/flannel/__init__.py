"""The flannel service of a node: a subnet lease for each node, and the way to every other subnet."""
