"""Fuzzing of everything that reads what strangers send: one table of targets, one set of invariants, one driver.

``targets`` names what is fuzzed and with which seeds, ``invariants`` says what must hold for any bytes, ``mutate`` damages
inputs in the ways of files (numbers, lines, fields) beside single bits, ``__main__`` runs the long search.
The short run is test_short.py; the inputs that once found something lie in fixtures/fuzz.
"""
