"""What a session has to say, in the order in which it goes out. Compiled callers only."""
