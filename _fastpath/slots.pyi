"""The table of the streams of one tunnel. Compiled callers only."""
