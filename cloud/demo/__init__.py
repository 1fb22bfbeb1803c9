"""Demo of the whole system on one machine, on real data: `vedette demo`.

It uses only the command line, as a user would: every part is a separate process.
"""
