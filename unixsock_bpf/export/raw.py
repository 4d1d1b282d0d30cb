"""Format ``raw``: the bytes of each direction in a file of its own, and an index of them.

``index.json`` has a line for each file when its conversation ends: what it is, and where bytes are missing.
"""

from __future__ import annotations

import json
from typing import Any

from unixsock_bpf.export.base import ExportFormat, Options
from unixsock_bpf.export.folder import Folder, file_name
from unixsock_bpf.export.turns import Conversation, pieces
from unixsock_bpf.formats.reader import SavedCapture
from unixsock_bpf.formats.text import name_text, type_name
from unixsock_bpf.record import Event, display_process

#: Places of missing bytes that the index names for a file; their sum is exact.
_GAPS = 1000


def _process(process: tuple[bytes, int]) -> str | None:
    return display_process(*process).decode("utf-8", "backslashreplace") or None


class _Index:
    """What is known of each direction's file."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._files: dict[tuple[int, bool], dict[str, Any]] = {}

    def file(self, conversation: Conversation, to_server: bool) -> dict[str, Any]:
        """Return the entry of a direction, which is made where there is none."""
        key = conversation.number, to_server
        if key not in self._files:
            way = "to_server" if to_server else "to_client"
            self._files[key] = {
                "file": f"{conversation.number:06}-{file_name(conversation.name)}-{way}.bin",
                "conversation": conversation.number,
                "direction": way,
                "type": type_name(conversation.type),
                "path": name_text(conversation.name) or None,
                "bytes": 0,
                "messages": 0,
                "missing_bytes": 0,
                "missing": [],
            }
        return self._files[key]

    def end(self, conversation: Conversation) -> None:
        """Write down both directions of a conversation that has ended."""
        for to_server in (True, False):
            entry = self._files.pop((conversation.number, to_server), None)
            if entry is not None:
                entry["client"] = _process(conversation.client_process)
                entry["server"] = _process(conversation.server_process)
                self._folder.append("index.json", json.dumps(entry).encode() + b"\n")


def _into(capture: SavedCapture, path: str, options: Options) -> None:
    folder = Folder(path)
    index = _Index(folder)
    open_conversations: dict[int, Conversation] = {}
    try:
        for piece in pieces(capture):
            conversation = piece.conversation
            if piece.event == Event.CLOSE:
                if len(conversation.closed | {0}) > 1:  # the other side had closed before
                    index.end(conversation)
                    open_conversations.pop(conversation.number, None)
                continue
            if piece.event != Event.DATA:
                continue
            open_conversations[conversation.number] = conversation
            entry = index.file(conversation, piece.to_server)
            if piece.missing:
                entry["missing_bytes"] += piece.missing
                if len(entry["missing"]) < _GAPS:
                    entry["missing"].append({"at": entry["bytes"], "bytes": piece.missing})
            folder.append(entry["file"], piece.payload)
            entry["bytes"] += len(piece.payload)
            entry["messages"] += not piece.more
        for conversation in open_conversations.values():
            index.end(conversation)
    finally:
        folder.close()


FORMAT = ExportFormat("raw", into=_into)
