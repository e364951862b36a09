"""Makes the claims of devices that pods ask for by a template, and frees devices that nobody uses any more."""
