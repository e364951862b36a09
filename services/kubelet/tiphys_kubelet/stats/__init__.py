"""What the node, its pods and their containers use: read when somebody asks, told as a summary and as metrics."""
