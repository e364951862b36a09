"""The shapes of work that scenarios are made of; table.py has the list."""
