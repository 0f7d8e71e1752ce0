"""Links with delay, rate and loss between two network namespaces, and what goes through them."""
