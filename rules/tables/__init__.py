"""Translation table pages."""
