"""Read a stored dataset again and compare every byte of it with its ready marker.

It uses the rooms `store`, `protocol` and `download` (for ranges).
"""
