"""A network path that a test can make slow, late or dead: a TCP proxy on loopback."""

import contextlib
import socket
import threading
import time


class Proxy:
    """Listens at `address` and passes everything on to `target`, under these settings, which may
    change at any time: `rate` (bytes per second towards the target; None: unlimited), `delay`
    (seconds, both ways) and `parted` (nothing passes, nothing is closed)."""

    def __init__(self, target=None):
        self.target = target
        self.rate = None
        self.delay = 0.0
        self.parted = False
        self.closed = False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.closed = True
        self.listener.close()

    def accept(self):
        while not self.closed:
            with contextlib.suppress(OSError):
                inside, _ = self.listener.accept()
                host, port = self.target.rsplit(":", 1)
                try:
                    outside = socket.create_connection((host, int(port)), timeout=5)
                except OSError:
                    inside.close()
                    continue
                outside.settimeout(None)
                for source, sink, limited in ((inside, outside, True), (outside, inside, False)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self.pump, args=(source, sink, limited),
                                     daemon=True).start()

    def pump(self, source, sink, limited):
        try:
            # Small pieces, so that a low rate is smooth.
            while data := source.recv(1024 if limited and self.rate else 65536):
                while self.parted and not self.closed:
                    time.sleep(0.01)
                if self.delay:
                    time.sleep(self.delay)
                if limited and self.rate:
                    time.sleep(len(data) / self.rate)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
