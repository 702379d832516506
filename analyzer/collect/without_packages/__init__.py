"""Parts of the collecting script in Python: standard library only, of 3.6; they are printed as one file."""
