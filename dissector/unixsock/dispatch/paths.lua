-- At which path which of Wireshark's own dissectors gets the payload; the protocols in protocols/ declare their paths
-- themselves.  Globs know * ? and [...]; * also matches "/".  Of those that match, the one with most characters counts.
-- The preference "Protocols by path" is searched before.
local host = ...
if type(host) ~= "table" then return end -- run by Wireshark's own scan of its plugin folder, not by unixsock.lua

return {
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
    { "*/containerd.sock", "http2" },
    { "*/containerd/*.sock", "http2" }, { "*/crio.sock", "http2" }, { "*/cri-dockerd.sock", "http2" },
    { "*/kubelet/*.sock", "http2" }, { "*/device-plugins/*.sock", "http2" }, { "*/csi*.sock", "http2" },
    { "*/buildkitd.sock", "http2" }, { "*/spire-agent/*.sock", "http2" }, { "*/grpc*.sock", "http2" },
    -- Databases and caches
    { "*/.s.PGSQL.*", "pgsql" }, { "*/mysql*.sock", "mysql" }, { "*/mariadb*.sock", "mysql" },
    { "*/mysqlx.sock", "data" }, { "*/memcached*", "memcache" }, { "*/mongodb-*.sock", "mongo" },
    -- Application servers
    { "*/php*fpm*.sock", "fcgi" }, { "*/php*.sock", "fcgi" }, { "*/fcgi*", "fcgi" }, { "*/fastcgi*", "fcgi" },
    -- Desktop
    { "/tmp/.X11-unix/X*", "x11" }, { "@/tmp/.X11-unix/X*", "x11" },
    { "@/tmp/.ICE-unix/*", "data" }, { "/tmp/.ICE-unix/*", "data" },
    -- Logs and services
    { "/dev/log", "syslog" }, { "*/systemd/journal/dev-log", "syslog" },
    { "*/systemd/journal/syslog", "syslog" }, { "*/rsyslog*", "syslog" },
    { "*/slapd*", "ldap" }, { "*/ldapi", "ldap" },
    -- Keys and secrets
    { "*/ssh*.sock", "ssh" }, { "*/tls*.sock", "tls" },
    -- Time and network
    { "*/ptp4lro", "ptp" }, { "*/ptp4l*", "ptp" }, { "*/pmc.*", "ptp" }, { "*/phc2sys.*", "ptp" },
    -- By port only in some versions
    { "*/frr/zserv.api", "tcp/2600" }, { "*/quagga/zserv.api", "tcp/2600" }, { "*/zserv.api", "tcp/2600" },
    { "*/libvirt/libvirt-sock*", "tcp/16509" }, { "*/libvirt/virt*-sock*", "tcp/16509" },
    { "*swtpm*.sock", "tcp/2321" }, { "*/agentx/master", "tcp/705" },
    { "*/rpcbind.sock", "tcp/111" }, { "*/openvswitch/*.mgmt", "openflow" }, { "*/openvswitch/*.snoop", "openflow" },
    -- Mail, messages, media
    { "*lmtp*", "smtp" }, { "*smtp*", "smtp" },
    { "*spice*", "SPICE" }, { "*vnc*", "VNC" }, { "*amqp*", "amqp" }, { "*mqtt*", "mqtt" },
    { "*mosquitto*", "mqtt" }, { "*/9p*", "9P" }, { "*virtfs*", "9P" },
    { "*.http.sock", "http" }, { "*http*", "http" },
}
