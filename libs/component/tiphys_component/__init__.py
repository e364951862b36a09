"""What every process needs: application life cycle, options, log, metrics, health, RPC, TLS, clock."""
