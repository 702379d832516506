"""What changed between two captures: the comparison, the hazards, their text, the command."""
