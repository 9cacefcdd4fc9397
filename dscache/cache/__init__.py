"""The local cache of datasets, shared by any number of processes.

It uses the rooms `folder`, `download` and `reading`; a hit imports only `folder`.
"""
