"""Makes the claims that pods ask for in their own spec."""
