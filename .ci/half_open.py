"""A thousand TLS handshakes that stop half way, and a client who wants something meanwhile. For .ci/tls.

Usage: half_open.py PORT CA PASSWORD
"""

import base64
import resource
import socket
import ssl
import sys
import time

COUNT = 1_000
# As docker's daemon waits.
PATIENCE_SECS = 30


def hello():
    """What a client says first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        context.wrap_bio(incoming, outgoing).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()


def ask(port, context, password):
    """How long an answer takes, with a connection and a handshake of its own."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECS) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as line:
            by = base64.b64encode(f"admin:{password}".encode()).decode()
            head = f"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Basic {by}\r\n\r\n"
            line.sendall(head.encode())
            assert line.recv(4096).startswith(b"HTTP/1.1 200"), "the client was not served"
    return time.monotonic() - began


def main():
    port, ca, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * COUNT + 100), hard))
    context, first = ssl.create_default_context(cafile=ca), hello()
    ask(port, context, password)
    socks = []
    for n in range(COUNT):
        sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECS)
        # Half of them stop in the middle of what they say, half when it is their turn again.
        sock.sendall(first if n % 2 else first[: len(first) // 2])
        socks.append(sock)
    worst = max(ask(port, context, password) for _ in range(20))
    assert worst < 5, f"a client waited {worst:.1f} s"
    began, closed = time.monotonic(), 0
    for sock in socks:
        try:
            # What the server said of the handshake, and then its end.
            while sock.recv(65536):
                pass
            closed += 1
        except ConnectionError:
            closed += 1
        except TimeoutError:
            pass
    assert closed == COUNT, f"only {closed} of {COUNT} were closed"
    took = time.monotonic() - began
    assert took < 15, f"they were closed after {took:.0f} s"
    print(f"{COUNT} half-open handshakes; a client waited {worst * 1e3:.0f} ms at most; all closed after {took:.0f} s")


main()
