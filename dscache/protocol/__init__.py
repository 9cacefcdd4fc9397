"""The protocol between clients and builders: names and contents of objects, requests, answers.

It talks to the bucket through the room `store` alone; the rules are in docs/protocol.md.
"""
