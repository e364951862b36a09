"""What each verb does, the same for both doors: one verb, one file."""
