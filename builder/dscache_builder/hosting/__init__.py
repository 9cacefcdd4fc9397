"""Run handlers in processes of their own, with limits, and take their shards.

`client` is the builder's side; `host` runs under the handler's interpreter and uses only the SDK.
"""
