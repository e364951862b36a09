"""Controllers of one's own: a reconcile function, the kinds it owns, and everything around them."""
