"""ASGI 3 applications: scopes, WebSockets, HTTP/1.1 and the lifespan."""
