"""The protocol between clients and builders: names and contents of objects, requests, answers.

It uses the bucket only through the room `store`. The rules are in docs/protocol.md.
"""
