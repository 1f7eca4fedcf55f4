"""Measurements of the service: durable ingest, restart, queries beside ingest.

``python -m benchmarks.service restart | ingest | queries``
"""
