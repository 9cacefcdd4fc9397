"""A local store and builder for one machine: what `dscache up`, the tests and the demo run on.

extra                      what has to be installed besides a client
recipe, toolchain, build   where the object store's server comes from
record, process            what runs, and how it is started and stopped
server, users, localstore  the store: its process, its bucket, users and policies
program, stack             the builder's process; up and down
"""
