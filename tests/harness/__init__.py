"""Real processes, raw sockets and recording origins for the end-to-end tests."""
