"""What containers of docker-compose.yml run that is no service: the issuer of certificates, a node's first process."""
