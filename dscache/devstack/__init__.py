"""A local store and builder, for `dscache up`, the tests and the demo.

extra                      the packages needed besides the client
recipe, toolchain, build   build the object store's server
probe, binaries            check and choose a server program
record, process            the record of what was started; starting and stopping processes
server, users, localstore  the store: its process, bucket, users and policies
elsewhere, profile         a store that is configured already; the profile for the local one
wheels, builderfile        the handlers' wheels and builder.toml
program                    the builder's process
folder, stack, takedown    the directory of a stack; up and down
"""
