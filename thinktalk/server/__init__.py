"""The server: OpenAI's protocols over HTTP and WebSocket in front of the streaming engine (docs/server.md).

    HTTP, WebSocket -> app.py -> chat.py | speech.py | transcriptions.py | realtime.py | voices.py -> hub.py -> engine.Session

Needs the extra `serve`; everything else of thinktalk works without it.
"""
