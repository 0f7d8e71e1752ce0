"""Whole processes side by side: this product and what a user would pick instead, in interleaved rounds."""
