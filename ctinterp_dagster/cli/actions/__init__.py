"""What commands do once their options are right: a module a command.

A command imports its module when its work begins. That loads torch and what reads scans, for which `--help` and
mistakes in options do not wait.
"""
