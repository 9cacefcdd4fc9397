"""Environments for handlers: resolved to a lock, made from it with uv, kept while they are used.

It uses dscache's manifests and no other room.
"""
