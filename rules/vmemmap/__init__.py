"""The array of struct pages."""
