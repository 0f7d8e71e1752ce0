"""What must hold between any two calls on a session, for the debug build. Compiled callers only."""
