"""Priority and fairness: which requests are worked on, which wait for whom, and which are sent away."""
