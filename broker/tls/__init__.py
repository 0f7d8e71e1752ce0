"""TLS contexts: what ports present and what they ask of clients."""
