"""wssup: WebSocket applications on Linux, supervised."""
