"""The process that runs handler code, under the interpreter of the handler's environment.

Imports only the standard library, dscache_sdk, blake3 and isal. `host_main.py` loads this package
under the name `dscache_host`, so no other module of the builder can be imported by a handler.
"""
