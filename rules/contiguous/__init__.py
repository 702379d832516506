"""The contiguous bit and break-before-make."""
