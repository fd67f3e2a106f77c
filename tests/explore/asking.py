"""Questions to a server, as a browser would ask them."""

import http.client
from urllib.parse import urlencode

from whence.explore.server import HOST


def ask(explorer, path, body=None, **headers):
    """Return the status and the body of a reply to a path below the token."""
    return request(explorer, f"/{explorer.token}/{path}", body, **headers)


def request(explorer, path, body=None, **headers):
    connection = http.client.HTTPConnection(HOST, explorer.server_port, timeout=60)
    connection.request("GET" if body is None else "POST", path, body, headers)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, content


def asked(explorer, name, **values):
    status, body = ask(explorer, f"api/{name}?{urlencode(values)}")
    assert status == 200, body
    return body
