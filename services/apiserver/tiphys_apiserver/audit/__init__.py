"""Who did what: the policy that says what is noted, the events, and the log they are written to."""
