"""The arithmetic of credit. Compiled callers only."""
