"""What heads must keep to. Compiled callers only."""
