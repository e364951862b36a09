"""The generic store of resources and the rules of each kind."""
