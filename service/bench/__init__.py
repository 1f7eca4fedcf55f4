"""`closeby bench`: every engine on the user's own data, measured and shown.

command    flags, progress, exit code      source    file or collection -> points and queries
plans      builds and their settings       run       the order, the clock, what is left out
worker     one build in its own process    journal   results.jsonl: what was measured already
measures   answers -> recall               report, plots, page   CSV and Markdown, PNG, HTML
"""
