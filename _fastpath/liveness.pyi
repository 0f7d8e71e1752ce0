"""Signs of life and round trips of a tunnel. Compiled callers only."""
