"""The scheduler's plugins once more, slow and plain: one node and one pod object at a time, nothing kept, no arrays.

Written from what Kubernetes documents of each plugin; the tests compare the columns with it.
"""
