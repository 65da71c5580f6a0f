#!/usr/bin/env python3
"""A token service for Docker's registry: RS256 tokens for the users of a file, over TLS.

Usage: token_service.py KEY CERTIFICATE USERS TOKENS
Prints the port it listens on. USERS has a line NAME:PASSWORD each; users may everything, nobody
else may anything. Every token that is issued is a line of TOKENS: who got it, and its scopes.
"""
import base64
import http.server
import json
import ssl
import sys
import time
import urllib.parse

import jwt

key, certificate, users, log = sys.argv[1:]
with open(users) as lines:
    passwords = dict(line.strip().split(":", 1) for line in lines)
with open(certificate) as text:
    chain = [base64.b64encode(ssl.PEM_cert_to_DER_cert(text.read())).decode()]
with open(key) as text:
    secret = text.read()


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        given = self.headers.get("Authorization", "")
        name, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
        if passwords.get(name, "") != password or not password:
            return self.answer(401, {"details": "incorrect username or password"})
        access = []
        for scope in query.get("scope", []):
            kind, repo, actions = scope.split(":", 2)
            access.append({"type": kind, "name": repo, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": "outport-ci", "sub": name, "aud": query["service"][0], "access": access,
                  "iat": now, "nbf": now - 5, "exp": now + 60, "jti": str(time.time_ns())}
        token = jwt.encode(claims, secret, algorithm="RS256", headers={"x5c": chain})
        with open(log, "a") as lines:
            lines.write(f"{name} {' '.join(query.get('scope', []))}\n")
        return self.answer(200, {"token": token, "expires_in": 60})

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
