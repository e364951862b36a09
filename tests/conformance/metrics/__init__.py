"""What tools made for Kubernetes expect of our metrics."""
