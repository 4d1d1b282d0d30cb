-- Which protocol is spoken at which path: the first match counts.  Globs know * ? and [...]; * also
-- matches "/".  The preference "Protocols by path" is searched before this table.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

return {
    -- D-Bus and its private buses
    { "*/dbus/system_bus_socket", "unixsock.dbus" }, { "/run/user/*/bus", "unixsock.dbus" },
    { "@/tmp/dbus-*", "unixsock.dbus" }, { "/tmp/dbus-*", "unixsock.dbus" },
    { "*/at-spi/bus*", "unixsock.dbus" },
    { "*/at-spi2-*/socket", "unixsock.dbus" }, { "*/ibus/dbus-*", "unixsock.dbus" },
    { "/run/systemd/private", "unixsock.dbus" }, { "/run/user/*/systemd/private", "unixsock.dbus" },
    { "*/dbus*sock*", "unixsock.dbus" }, { "*/pulse/dbus-socket", "unixsock.dbus" },
    { "*bus_socket", "unixsock.dbus" },
    -- HTTP
    { "*/docker.sock", "http" }, { "*/docker-*.sock", "http" }, { "*/dockerd.sock", "http" },
    { "*/docker/plugins/*.sock", "http" }, { "*/podman.sock", "http" }, { "*/snapd.socket", "http" },
    { "*/snapd-snap.socket", "http" }, { "*/lxd/unix.socket", "http" }, { "*/incus/unix.socket", "http" },
    { "*/lxd*.sock*", "http" }, { "*/cups.sock", "http" }, { "*/cups/*.sock", "http" },
    { "*/nginx*.sock", "http" }, { "*/uvicorn*.sock", "http" }, { "*/gunicorn*.sock", "http" },
    { "*/puma*.sock", "http" }, { "*/unicorn*.sock", "http" }, { "*/lighttpd*.sock", "http" },
    { "*/crowdsec*.sock", "http" }, { "*/firecracker*.sock*", "http" }, { "*/cloud-hypervisor*.sock", "http" },
    { "*/tailscaled.sock", "http" }, { "*/caddy*.sock", "http" }, { "*/http*.sock*", "http" },
    -- HTTP/2 and gRPC
    { "*/containerd.sock", "http2" }, { "*/containerd.sock.ttrpc", "unixsock.ttrpc" },
    { "*/containerd/s/*", "unixsock.ttrpc" },
    { "*/containerd/*.sock", "http2" }, { "*/crio.sock", "http2" }, { "*/cri-dockerd.sock", "http2" },
    { "*/kubelet/*.sock", "http2" }, { "*/device-plugins/*.sock", "http2" }, { "*/csi*.sock", "http2" },
    { "*/buildkitd.sock", "http2" }, { "*/spire-agent/*.sock", "http2" }, { "*/grpc*.sock", "http2" },
    -- Databases and caches
    { "*/.s.PGSQL.*", "pgsql" }, { "*/mysql*.sock", "mysql" }, { "*/mariadb*.sock", "mysql" },
    { "*/mysqlx.sock", "data" }, { "*/redis*.sock", "unixsock.resp" }, { "*/redis*/*.sock", "unixsock.resp" },
    { "*/valkey*.sock", "unixsock.resp" }, { "*/keydb*.sock", "unixsock.resp" }, { "*/memcached*", "memcache" },
    { "*/mongodb-*.sock", "mongo" },
    -- Application servers
    { "*/php*fpm*.sock", "fcgi" }, { "*/php*.sock", "fcgi" }, { "*/fcgi*", "fcgi" }, { "*/fastcgi*", "fcgi" },
    { "*/uwsgi*", "unixsock.uwsgi" },
    -- Desktop
    { "/tmp/.X11-unix/X*", "x11" }, { "@/tmp/.X11-unix/X*", "x11" },
    { "*/wayland-*", "unixsock.wayland" }, { "*/pulse/native", "unixsock.pulse" },
    { "*/pipewire-*", "unixsock.pipewire" }, { "@/tmp/.ICE-unix/*", "data" }, { "/tmp/.ICE-unix/*", "data" },
    -- Logs and services
    { "/dev/log", "syslog" }, { "*/systemd/journal/dev-log", "syslog" },
    { "*/systemd/journal/syslog", "syslog" },
    { "*/rsyslog*", "syslog" }, { "*/systemd/journal/socket", "unixsock.journald" },
    { "*/systemd/notify", "unixsock.notify" }, { "@*/systemd/notify*", "unixsock.notify" },
    { "*/notify*", "unixsock.notify" },
    { "*/io.systemd*", "unixsock.varlink" }, { "*/org.varlink*", "unixsock.varlink" },
    { "*varlink*", "unixsock.varlink" },
    { "*/systemd/userdb/*", "unixsock.varlink" }, { "*qmp*", "unixsock.json" },
    { "*/libvirt/qemu/*/monitor.sock", "unixsock.json" },
    { "*/qga*", "unixsock.json" }, { "*mpv*sock*", "unixsock.json" }, { "*/i3/ipc*", "data" },
    { "*json*", "unixsock.json" }, { "*/slapd*", "ldap" }, { "*/ldapi", "ldap" },
    -- Keys and secrets
    { "*/ssh-*/agent.*", "unixsock.ssh_agent" }, { "*/openssh_agent", "unixsock.ssh_agent" },
    { "*/keyring/ssh", "unixsock.ssh_agent" }, { "*S.gpg-agent.ssh", "unixsock.ssh_agent" },
    { "*ssh*agent*", "unixsock.ssh_agent" },
    { "*/gcr/ssh", "unixsock.ssh_agent" },
    { "*/S.*", "unixsock.assuan" }, { "*/ssh*.sock", "ssh" }, { "*/tls*.sock", "tls" },
    -- Time and network
    { "*/chrony*.sock", "unixsock.chrony" }, { "*/chrony/chronyc.*", "unixsock.chrony" },
    { "*/ptp4lro", "ptp" }, { "*/ptp4l*", "ptp" }, { "*/pmc.*", "ptp" }, { "*/phc2sys.*", "ptp" },
    { "*/wpa_supplicant/*", "unixsock.wpa_ctrl" }, { "*/hostapd/*", "unixsock.wpa_ctrl" },
    { "*/wpa_ctrl_*", "unixsock.wpa_ctrl" }, { "*wpa_*global*", "unixsock.wpa_ctrl" },
    -- Mail, messages, media
    { "*milter*", "unixsock.milter" }, { "*/opendkim*.sock", "unixsock.milter" }, { "*lmtp*", "smtp" },
    { "*smtp*", "smtp" },
    { "*/mpd/socket", "unixsock.mpd" }, { "*/mpd*sock*", "unixsock.mpd" },
    { "*spice*", "SPICE" }, { "*vnc*", "VNC" }, { "*amqp*", "amqp" }, { "*mqtt*", "mqtt" },
    { "*mosquitto*", "mqtt" },
    { "*zmtp*", "unixsock.zmtp" }, { "*zmq*", "unixsock.zmtp" }, { "*/9p*", "9P" }, { "*virtfs*", "9P" },
    { "*.http.sock", "http" }, { "*http*", "http" },
}
