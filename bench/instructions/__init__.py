"""What a request costs in the compiled core, in instructions: the same on a busy machine."""
