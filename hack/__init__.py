"""Tools of development; nothing here is installed."""
