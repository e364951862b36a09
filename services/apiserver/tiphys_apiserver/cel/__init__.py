"""CEL expressions as the API server has them: with its authorizer's functions, and judged before there are objects."""
