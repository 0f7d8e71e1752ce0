"""External, registration and admin ports: listen, accept, hand over."""
