"""Rules of autoscalers."""
