"""Who asks: certificates, tokens, service accounts."""
