"""The tiphys command."""
