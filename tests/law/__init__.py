"""The law: taking evidence away never turns a rule that fired into one that passed or does not apply."""
