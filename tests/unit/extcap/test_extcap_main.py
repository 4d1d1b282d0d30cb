"""The extcap protocol, as Wireshark speaks it: sentences that 4.0 can read, quick answers, clear refusals."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from unixsock_bpf.extcap import main, session
from unixsock_bpf.linux import listed_sockets
from unixsock_bpf.options import OPTIONS, OptionError, settings
from unixsock_bpf.privilege import launch

ROOT = Path(__file__).resolve().parents[3]

#: As Wireshark's extcap_parser.c cuts a sentence.
FIELD = re.compile(r"\{([^}=]*)=(.*?)\}(?=\{|$|\s)")
#: Types of arguments and controls in Wireshark 4.0.
TYPES = {
    *("integer", "unsigned", "long", "double", "string", "password", "boolean", "boolflag"),
    *("fileselect", "selector", "radio", "multicheck", "timestamp"),
}
INTERFACE = ("--extcap-interface", "unixsock")


def run(*argv, **options):
    code = "import sys; from unixsock_bpf.extcap.main import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
        **options,
    )


def sentences(text):
    """(kind, fields) of each line; fails where a line has more than Wireshark would read of it."""
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        fields = FIELD.findall(rest)
        assert "".join(f"{{{key}={value}}}" for key, value in fields) == rest
        yield kind, dict(fields)


def test_interfaces():
    told = list(sentences(main.answer(["--extcap-interfaces", "--extcap-version=4.0"])))
    assert [fields for kind, fields in told if kind == "interface"] == [
        {"value": "unixsock", "display": "Unix sockets"},
        {"value": "unixsock-ssh", "display": "Unix sockets of another host"},
    ]
    (own,) = (fields for kind, fields in told if kind == "extcap")
    assert own["display"] == "Unix sockets"
    assert Path(own["help"].removeprefix("file://")).is_file()
    controls = [fields for kind, fields in told if kind == "control"]
    assert [int(control["number"]) for control in controls] == list(range(6))
    assert [control["type"] for control in controls] == [
        "string",
        "boolean",
        "boolean",
        "button",
        "button",
        "button",
    ]
    assert [control.get("role") for control in controls[3:]] == [None, "logger", "help"]


def test_a_version_from_the_future_is_no_obstacle():
    assert (
        main.answer(["--extcap-interfaces", "--extcap-version=9.9", "--extcap-whatever"]) == main.interfaces()
    )


def test_dlts():
    assert [
        (kind, fields["number"]) for kind, fields in sentences(main.answer(["--extcap-dlts", *INTERFACE]))
    ] == [("dlt", "252")]


def test_config_is_readable_by_4_0():
    told = list(sentences(main.answer(["--extcap-config", *INTERFACE])))
    arguments = [fields for kind, fields in told if kind == "arg"]
    assert [argument["call"] for argument in arguments] == [f"--{option.name}" for option in OPTIONS]
    assert [int(argument["number"]) for argument in arguments] == list(range(len(OPTIONS)))
    for argument in arguments:
        assert argument["type"] in TYPES
        assert {"display", "tooltip", "group"} <= argument.keys()
        assert not {"required", "default"} <= argument.keys()
    assert [argument["call"] for argument in arguments if argument.get("reload") == "true"] == ["--path"]
    numbers = {argument["number"] for argument in arguments if argument["type"] == "selector"}
    assert {fields["arg"] for kind, fields in told if kind == "value"} == numbers


def dialog_accepts(argument: dict[str, str], text: str) -> bool:
    """Whether the dialog of 4.0 to 4.6 lets ``text`` in a field pass.

    Source: ExtArgText::isValid, and QIntValidator for numbers, which take no empty field.
    """
    if argument["type"] in ("integer", "unsigned", "long"):
        low, high = map(int, argument.get("range", "0,4294967295").split(","))
        return text.isdigit() and low <= int(text) <= high
    return not text or re.search(argument.get("validation", ""), text) is not None


def test_the_dialog_can_start_untouched_and_with_emptied_fields():
    told = list(sentences(main.answer(["--extcap-config", *INTERFACE])))
    fields = [f for kind, f in told if kind == "arg" and f["type"] not in ("boolflag", "selector")]
    assert len(fields) == 5
    for field in fields:
        # 4.0 to 4.6 put 0 into a number without a default.
        untouched = field.get("default", "0" if field["type"] == "unsigned" else "")
        assert dialog_accepts(field, untouched), field["call"]
        assert dialog_accepts(field, ""), field["call"]


def test_the_dialog_refuses_what_the_capture_would():
    told = list(sentences(main.answer(["--extcap-config", *INTERFACE])))
    fields = {f["call"]: f for kind, f in told if kind == "arg"}
    for call, good, bad in (
        ("--pid", ("0", "1", "4194304"), ("-1", "x", "1e3", "7 8")),
        ("--snaplen", ("0", "2147483647"), ("-1", "1k")),
        ("--buffer-size", ("1", "64", "999", "1000", "1024"), ("0", "1025", "1030", "1100", "10000", "-1")),
        ("--uid", ("root", "0"), ("a b", "a:b")),
    ):
        for text in good:
            assert dialog_accepts(fields[call], text), (call, text)
            settings({call[2:]: text})
        for text in bad:
            assert not dialog_accepts(fields[call], text), (call, text)
            with pytest.raises(OptionError):
                settings({call[2:]: text})


def test_reload_lists_present_sockets_with_their_processes(tmp_path):
    name = str(tmp_path / "a *}{b")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        text = main.answer(
            [
                "--extcap-config",
                *INTERFACE,
                "--extcap-reload-option",
                "path",
                "--path",
                "/mine*",
                "--snaplen",
                "0",
            ]
        )
    told = list(sentences(text))
    assert {kind for kind, _ in told} == {"value"}
    assert [fields["value"] for _, fields in told[:2]] == ["*", "/mine*"]
    (mine,) = (fields for _, fields in told if str(tmp_path) in fields["display"])
    assert "(stream)" in mine["display"]
    assert re.search(r"\S\[\d+\]$", mine["display"])
    assert mine["value"].endswith(r"/a \*?{b")


def test_globs_for_names_match_them_and_no_wildcard_of_theirs():
    from unixsock_bpf.filter.glob import parse, plain

    for name in (b"/a*b", b"/a?[x]", b"\\", b"/a}b", b"/\xff\xfex", "/é".encode(), b"@a@b", b"/a\tb"):
        assert parse(plain(listed_sockets.as_glob(name))).matches(name)
    assert not parse(plain(listed_sockets.as_glob(b"/a*b"))).matches(b"/axb")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--extcap-config"], "--extcap-interface is missing"),
        (["--extcap-config", "--extcap-interface", "eth0"], "no interface 'eth0'"),
        (["--extcap-dlts", "--extcap-interface", "eth0"], "no interface 'eth0'"),
        (["--nonsense"], "no option '--nonsense'"),
        (["--extcap-config", *INTERFACE, "--nonsense"], "no option '--nonsense'"),
        (["--extcap-config", *INTERFACE, "more"], "unexpected word 'more'"),
        (["--extcap-config", *INTERFACE, "--extcap-reload-option", "pid"], "nothing to reload"),
        (["--extcap-interface"], "needs a value"),
        ([*INTERFACE], "no verb"),
    ],
)
def test_refusals_are_one_sentence(argv, words):
    done = run(*argv)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_filter_validation_speaks_on_stdout_and_exits_0():
    good = run("--extcap-capture-filter", "path /run/x and src pid 3", *INTERFACE)
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    for bad in ("path /run/x an", "'", "é\udcff", "(" * 30_000, "x" * 100_000):
        done = run("--extcap-capture-filter", bad, *INTERFACE)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count("\n") == 1


def test_answers_do_not_depend_on_the_locale():
    done = run(
        "--extcap-capture-filter", "é", *INTERFACE, env={"LC_ALL": "C", "PYTHONPATH": ":".join(sys.path)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "'é'" in done.stdout


def test_cleanup_and_usage():
    assert main.answer(["--extcap-cleanup-postkill"]) == ""
    assert "tshark -i unixsock" in main.answer(["--help"]) == main.answer([])


def test_capture_settings_from_wiresharks_call():
    call = "--capture --extcap-interface unixsock --fifo /f --extcap-control-out /o --extcap-control-in /i"
    options = "--snaplen 0 --buffer-size 16 --path /run/x --events"
    chosen = main.capture_settings([*call.split(), *options.split(), "--extcap-capture-filter", "less 9"])
    assert (chosen.fifo, chosen.control_in, chosen.control_out) == ("/f", "/i", "/o")
    assert (chosen.snaplen, chosen.buffer_mib, chosen.events) == (0, 16, True)


@pytest.mark.parametrize("in_window", [False, True])
def test_commands_in_a_refusal_have_lines_of_their_own_in_a_window(tmp_path, capfd, in_window):
    """Message boxes break lines at hyphens."""
    told = launch.not_installed()
    control = tmp_path / "control"
    control.touch()
    session.run_refused(None, str(control) if in_window else None, told)
    said = capfd.readouterr().err
    assert ("sudo unixsock install --system --group unixsock" in said.splitlines()) == in_window
    assert (said == told + "\n") != in_window


def test_refused_capture_still_learns_its_pipes(monkeypatch):
    """Wireshark waits for both pipes to be opened, whatever is wrong with the options."""
    told = []
    monkeypatch.setattr("unixsock_bpf.extcap.session.run_refused", lambda *given: told.append(given) or 1)
    pipes = ["--fifo", "/f", "--extcap-control-in=/i"]
    assert main.main(["--capture", *INTERFACE, "--pid", "x", *pipes]) == 1
    assert main.main(["--capture", *INTERFACE, "--nonsense", *pipes]) == 1
    assert main.main(["--capture", *INTERFACE, "--extcap-capture-filter", "fd", *pipes]) == 1
    assert [given[:2] for given in told] == [("/f", "/i")] * 3
    assert [
        word for word in ("--pid", "--nonsense", "At position 1") for given in told if word in given[2]
    ] != []
    assert all("\n" not in given[2] for given in told)


#: dataclasses take a dozen on Python 3.11, the capture filter another dozen.
MOST_MODULES = 40
#: Runs a call and prints the modules that it loaded besides those of a bare interpreter.
LOADED = """
import sys; before = set(sys.modules)
from unixsock_bpf.extcap.main import main
sys.stdout = open("/dev/null", "w"); main(); print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "argv",
    [
        ["--extcap-interfaces", "--extcap-version=4.0"],
        ["--extcap-dlts", *INTERFACE],
        ["--extcap-config", *INTERFACE],
    ],
)
def test_few_modules_are_imported_to_answer(argv: list[str]) -> None:
    """Answers come within milliseconds of the interpreter's start, whose modules are no cost of ours."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}){LOADED}", *argv],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = done.stderr.split()
    assert not {"bcc", "lark", "pyshark", "subprocess", "asyncio", "logging"} & set(modules)
    assert len(modules) <= MOST_MODULES, modules
