"""API groups that other servers serve: APIServices, and requests passed on to who is behind them."""
