"""The local cache of datasets, for any number of processes at once.

It uses the rooms `folder` and, where a hit ends and a download begins, `download` and `reading`.
"""
