"""A server program that accepts listeners and sends them nothing, as published builds do.

Run as `minio server DIR --address HOST:PORT …` with DSCACHE_REAL_SERVER naming the real program:
that one runs behind this, which passes connections on as they are, except those that listen.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading


def pump(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until either side closes."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for side in (source, target):
            side.close()


def serve(client: socket.socket, port: int, held: list[socket.socket]) -> None:
    """Pass one connection on, or hold it for ever when it begins with a listen request."""
    first = client.recv(1 << 16)
    if b"events=" in first.partition(b"\r\n")[0]:
        held.append(client)
        return
    server = socket.create_connection(("127.0.0.1", port))
    server.sendall(first)
    threading.Thread(target=pump, args=(server, client), daemon=True).start()
    pump(client, server)


def main() -> None:
    """Start the real server on another port and stand before it."""
    args = sys.argv[1:]
    host, _, port = args[args.index("--address") + 1].rpartition(":")
    with socket.socket() as probe:
        probe.bind((host, 0))
        inner = probe.getsockname()[1]
    args[args.index("--address") + 1] = f"{host}:{inner}"
    real = subprocess.Popen([os.environ["DSCACHE_REAL_SERVER"], *args])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    held: list[socket.socket] = []
    try:
        with socket.create_server((host, int(port))) as listener:
            while True:
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client, inner, held), daemon=True).start()
    finally:
        real.terminate()
        real.wait()


if __name__ == "__main__":
    main()
