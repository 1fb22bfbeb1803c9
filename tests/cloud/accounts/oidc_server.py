"""A small OpenID Connect provider on loopback that signs ID tokens with its own RSA key."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "vedette", "secret of the client"


class OidcServer:
    """The provider; `claims` change the next tokens, and everybody who is sent to it has the account of `claims`."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one"})
        self.claims: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        self.sign: Callable[[dict[str, Any]], str] = self.sign_with(self.key)
        self.codes: dict[str, dict[str, str]] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self, None)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                server.answer(self, dict(parse_qsl(body)))

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}/realm"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def sign_with(key: RSAKey) -> Callable[[dict[str, Any]], str]:
        return lambda claims: jwt.encode({"alg": "RS256", "kid": "one"}, claims, key)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def authorize(self, url: str) -> str:
        """What a browser does there: sign in, and be sent back to the returned address."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert url.startswith(f"{self.issuer}/authorize?")
        assert (query["response_type"], query["client_id"]) == ("code", CLIENT)
        assert query["code_challenge_method"] == "S256"
        code = f"code{len(self.codes)}"
        self.codes[code] = query
        return f"{query['redirect_uri']}?code={code}&state={query['state']}"

    def answer(self, request: BaseHTTPRequestHandler, form: dict[str, str] | None) -> None:
        path = urlsplit(request.path).path.removeprefix("/realm")
        status, value = 200, self._metadata()
        if path == "/keys":
            value = {"keys": [self.key.as_dict(private=False)]}
        elif path == "/token":
            status, value = self._token(form or {}, request.headers.get("Authorization", ""))
        elif path != "/.well-known/openid-configuration":
            status, value = 404, {}
        body = json.dumps(value).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def _metadata(self) -> dict[str, Any]:
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        known = {name: f"{self.issuer}/{path}" for name, path in paths.items()}
        return {"issuer": self.issuer, **known, **self.metadata}

    def _token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        query = self.codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        expected = "Basic " + base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if query is None or query["code_challenge"] != challenge or authorization != expected:
            return 400, {"error": "invalid_grant"}
        assert form["redirect_uri"] == query["redirect_uri"]
        now_s = int(time.time())
        standard = {"iss": self.issuer, "aud": CLIENT, "sub": "7", "iat": now_s, "exp": now_s + 60}
        claims = {**standard, "nonce": query["nonce"], **self.claims}
        claims = {name: value for name, value in claims.items() if value is not None}
        return 200, {"access_token": "x", "token_type": "Bearer", "id_token": self.sign(claims)}
