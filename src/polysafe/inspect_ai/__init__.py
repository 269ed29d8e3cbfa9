"""Inspect interchange: runs as Inspect logs, Inspect logs as runs, prompt sets as Inspect tasks.

Everything here needs the extra `inspect`. Modules that Inspect itself loads (`scoring`, `tasks`, `registry`) import it
at their top; what the command line loads imports it when it is used.
"""
