"""Two laws of missing evidence.

Taking evidence away never turns a rule that fired into one that passed or does not apply, and never makes a rule report
something of high severity or above where none did.
"""
