"""What commands are given: a module for the options of a command, or for the values of one option.

Nothing here loads torch or reads scans, for which `--help` and mistakes in options do not wait.
"""
