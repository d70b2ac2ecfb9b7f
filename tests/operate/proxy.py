"""A network path that a test can make slow, late or dead: a TCP proxy on loopback."""

import contextlib
import random
import socket
import threading
import time


class Proxy:
    """Listens at `address` and passes everything on to `target`, under these settings, which may
    change at any time: `rate` (bytes per second towards the target; None: unlimited), `delay`
    (seconds, both ways), `loss` (share of the pieces that are lost and come after TCP's shortest
    retransmission timeout, all behind them waiting) and `parted` (nothing passes, nothing is
    closed)."""

    RETRANSMISSION_SECONDS = 0.2

    def __init__(self, target=None, host="127.0.0.1"):
        self.target = target
        self.rate = None
        self.delay = 0.0
        self.loss = 0.0
        self.parted = False
        self.closed = False
        self.open = set()
        self.lock = threading.Lock()
        self.listener = socket.create_server((host, 0))
        self.address = f"{host}:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def cut(self):
        """Breaks every connection."""
        with self.lock:
            for one in self.open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

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
                with self.lock:
                    self.open |= {inside, outside}
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
                if self.loss and random.random() < self.loss:
                    time.sleep(self.RETRANSMISSION_SECONDS)
                if limited and self.rate:
                    time.sleep(len(data) / self.rate)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            with self.lock:
                self.open -= {source, sink}
            for one in (source, sink):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
