"""``unixsock sockets``: list existing sockets."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from unixsock_bpf.cli.arguments import add_filter, add_options, chosen_filter
from unixsock_bpf.cli.errors import Failure
from unixsock_bpf.filter.sockets import select
from unixsock_bpf.formats.text import name_text, process_text, type_name
from unixsock_bpf.linux.sockets import Socket, SocketsError, State, sockets

_HEADINGS = (
    "TYPE",
    "STATE",
    "RECV-Q",
    "SEND-Q",
    "INODE",
    "PEER",
    "PROCESS",
    "NAME",
    "PEER PROCESS",
    "PEER NAME",
)


def add(commands: Any) -> None:
    """Add the subcommand and its arguments."""
    parser = commands.add_parser(
        "sockets", help="list the present sockets with both endpoints", allow_abbrev=False
    )
    add_filter(parser)
    parser.add_argument("--format", choices=("table", "json", "dot"), default="table", help="default: table")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="as --format json")
    add_options(parser, terms_only=True)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the table.  Raises Failure."""
    wanted = chosen_filter(arguments)
    try:
        present = sockets()
    except SocketsError as error:
        raise Failure(str(error)) from None
    by_inode = {socket.inode: socket for socket in present}
    shown = sorted((socket for socket, _ in select(present, wanted)), key=lambda one: (one.name, one.inode))
    if arguments.format == "json":
        _print_json(shown, by_inode)
    elif arguments.format == "dot":
        _print_graph(shown, by_inode)
    else:
        _print_table(shown, by_inode)
        if os.geteuid() != 0:
            sys.stdout.flush()
            print("unixsock: the processes of other users are only shown to root", file=sys.stderr)
    return 0


def state_text(number: int) -> str:
    """Return a state's name."""
    return State(number).name.lower() if number in State._value2member_map_ else str(number)


def processes_text(one: Socket | None) -> str:
    """Return a socket's youngest process and how many more hold it; ``-`` if none is known."""
    if one is None or not one.owners:
        return "-"
    first = process_text(one.owners[0].comm, one.owners[0].tgid)
    return first if len(one.owners) == 1 else f"{first} +{len(one.owners) - 1}"


def _print_table(shown: list[Socket], by_inode: dict[int, Socket]) -> None:
    rows = [_HEADINGS]
    for one in shown:
        peer = by_inode.get(one.peer)
        rows.append(
            (
                type_name(one.type),
                state_text(one.state),
                str(one.receive_queue),
                str(one.send_queue),
                str(one.inode),
                str(one.peer or "-"),
                processes_text(one),
                name_text(one.name) or "-",
                processes_text(peer),
                (name_text(peer.name) if peer else "") or "-",
            )
        )
    # One format for all rows: with tens of thousands of sockets, nearly all of the time goes by here.
    widths = [max(map(len, column)) for column in zip(*rows)]
    line = "  ".join(f"{{:{width}}}" for width in widths)
    text = "".join(line.format(*row).rstrip() + "\n" for row in rows)
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))


def _endpoint(one: Socket) -> dict[str, Any]:
    return {
        "inode": one.inode,
        "name": name_text(one.name) or None,
        "processes": [
            {
                "pid": owner.tgid,
                "comm": owner.comm.decode(errors="backslashreplace"),
                "uid": owner.uid,
                "gid": owner.gid,
            }
            for owner in one.owners
        ],
    }


def _print_json(shown: list[Socket], by_inode: dict[int, Socket]) -> None:
    objects = []
    for one in shown:
        peer = by_inode.get(one.peer)
        about = {
            "type": type_name(one.type),
            "state": state_text(one.state),
            "receive_queue": one.receive_queue,
            "send_queue": one.send_queue,
            "netns": one.netns,
            "peer": _endpoint(peer) if peer else {"inode": one.peer} if one.peer else None,
        }
        objects.append(json.dumps(_endpoint(one) | about))
    sys.stdout.write("[" + ",\n ".join(objects) + "]\n")


def _print_graph(shown: list[Socket], by_inode: dict[int, Socket]) -> None:
    """Print who is connected to whom, as a graph for Graphviz."""
    from unixsock_bpf.export.dot import graph

    pairs: dict[tuple[str, str, str, str], int] = {}
    seen: set[int] = set()
    for one in shown:
        peer = by_inode.get(one.peer)
        if peer is None or one.inode in seen:
            continue
        seen.add(peer.inode)
        client, server = (peer, one) if one.name and not peer.name else (one, peer)
        name = name_text(server.name or client.name) or "(unnamed)"
        key = processes_text(client), processes_text(server), name, type_name(one.type)
        pairs[key] = pairs.get(key, 0) + 1
    edges = (
        (client, server, [name, f"{count} {kind}{'' if count == 1 else 's'}"])
        for (client, server, name, kind), count in pairs.items()
    )
    text = "".join(graph(edges))
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
