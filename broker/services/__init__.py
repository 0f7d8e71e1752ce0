"""Local services: from the configuration to compiled targets, with names resolved and kept fresh."""
