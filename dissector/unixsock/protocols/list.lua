-- The protocols, one name a line: each is the file of that name in this folder (docs/protocols.md tells how to add
-- one).  Where several match a path equally well, or the first bytes of a message, the first in this list counts.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

return {
    "dbus",
    "varlink",
    "json_lines",
    "wayland",
    "ssh_agent",
    "wpa_ctrl",
    "sd_notify",
    "journald",
    "gpg_assuan",
    "chrony",
    "milter",
    "mpd",
    "uwsgi",
    "pulse",
    "pipewire",
    "ttrpc",
    "redis",
    "zmtp",
    "ssh_mux",
    "nbd",
    "multiprocessing",
    "tmux",
    "i3_ipc",
    "emacs",
    "journal_stream",
    "udev_ctrl",
    "docker_stream",
    "sane",
    "lines",
}
