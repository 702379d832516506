"""Rules about what a kernel said when it oopsed or warned."""
