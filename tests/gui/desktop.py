"""A screen without hardware: X server, window manager, AT-SPI bus, mouse, keyboard and pictures."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageGrab

#: Where screenshots go.
PICTURES = Path(__file__).resolve().parents[2] / ".cache" / "gui"
SIZE = (1280, 800)

#: Any user's program may take part: Wireshark is tried as an unprivileged user too.
_BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>accessibility</type>
  <listen>unix:path={folder}/bus</listen>
  <auth>EXTERNAL</auth>
  <servicedir>/usr/share/dbus-1/accessibility-services</servicedir>
  <policy context="default">
    <allow user="*"/><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class Desktop:
    """A desktop from ``with`` on.  One at a time: the AT-SPI library knows one bus in its life.

    ``prefix``: what the names of pictures begin with.
    """

    prefix = ""
    #: The one that there is.
    current: Desktop | None = None

    def __enter__(self) -> Desktop:
        self._stack = contextlib.ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="desktop-")))
        self.folder.chmod(0o755)
        self.display = self._start_x()
        bus = self.folder / "bus.conf"
        bus.write_text(_BUS.format(folder=self.folder))
        #: For programs that are to be seen on this desktop.
        self.environment = {
            "DISPLAY": self.display,
            "AT_SPI_BUS_ADDRESS": f"unix:path={self.folder}/bus",
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self.folder}/bus",  # Qt looks at AT-SPI only with one
            "QT_LINUX_ACCESSIBILITY_ALWAYS_ON": "1",
            "LC_ALL": "C.UTF-8",
        }
        os.environ.update(self.environment)
        self._start("dbus-daemon", f"--config-file={bus}", "--nofork", "--nopidfile")
        self._start("openbox", "--sm-disable")
        self._wait_for_bus()
        Desktop.current = self
        return self

    def __exit__(self, *_: object) -> None:
        Desktop.current = None
        self._stack.close()

    def _start(self, *command: str, pass_fds: tuple[int, ...] = ()) -> None:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=pass_fds)
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def _start_x(self) -> str:
        told, tell = os.pipe()
        size = f"{SIZE[0]}x{SIZE[1]}x24"
        self._start(
            *("Xvfb", "-displayfd", str(tell), "-screen", "0", size, "-ac", "-nolisten", "tcp", "-noreset"),
            pass_fds=(tell,),
        )
        os.close(tell)
        with open(told) as number:
            return f":{number.readline().strip()}"

    def _wait_for_bus(self) -> None:
        deadline = time.monotonic() + 30
        while not (self.folder / "bus").exists():
            assert time.monotonic() < deadline, "the AT-SPI bus did not start"
            time.sleep(0.05)
        (self.folder / "bus").chmod(0o777)
        # Where Qt looks.
        address = self.environment["AT_SPI_BUS_ADDRESS"]
        property_ = ("-f", "AT_SPI_BUS", "8s", "-set", "AT_SPI_BUS", address)
        subprocess.run(["xprop", "-root", *property_], check=True)

    def do(self, *words: str | int) -> None:
        """Runs ``xdotool`` with ``words``."""
        subprocess.run(["xdotool", *map(str, words)], check=True, capture_output=True)

    def click(self, at: tuple[int, int], times: int = 1) -> None:
        """Clicks at a point of the screen."""
        repeat = ("--repeat", times, "--delay", 60) if times > 1 else ()
        self.do("mousemove", *at, "click", *repeat, 1)

    def keys(self, *names: str) -> None:
        """Presses keys such as ``Return`` or ``ctrl+k``."""
        self.do("key", "--delay", 30, *names)

    def type(self, text: str) -> None:
        """Types ``text`` into what has the keyboard."""
        self.do("type", "--delay", 15, text)

    def picture(self, name: str = "", box: tuple[int, int, int, int] | None = None) -> Image.Image:
        """What the screen shows, or the part (left, top, right, bottom) of it; with a name, also a file."""
        if name:
            time.sleep(0.5)  # what has just been opened or raised is drawn
        image = ImageGrab.grab(bbox=box, xdisplay=self.display)
        if name:
            PICTURES.mkdir(parents=True, exist_ok=True)
            # 256 colours are enough for a window, and make small files.
            image.quantize(256, dither=Image.Dither.NONE).save(
                PICTURES / f"{self.prefix}{name}.png", optimize=True
            )
        return image
