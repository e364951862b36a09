"""metrics.k8s.io: what nodes and pods use, asked of their kubelets when somebody asks for it."""
