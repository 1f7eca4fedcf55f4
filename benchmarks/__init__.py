"""Measurements of closeby and its peers on named real data; ``python -m benchmarks --help``.

    datasets   named data -> points and queries      truth      exact neighbours of the queries
    subjects/  one class for each engine measured    worker     one subject in one process
    plans      which subjects with which parameters  harness    all subjects of one run
    measures   answers -> recall                     report, plots, stages

How everything is measured, and what came out, is in docs/benchmarks.md.
"""
