"""Certificate signing requests: approved for kubelets, signed, and deleted when they are of no more use."""
