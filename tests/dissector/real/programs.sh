# Real programs that talk over Unix sockets.  Sourced by record.sh, in a guest.
#
# serve_NAME starts what answers, before the capture; talk_NAME says something while it runs.  All state lies in
# $W (a tmpfs), sockets where Debian puts them (/run, /tmp) or, to be recognised by content alone, in /tmp/odd.

asuser() { user=$1; shift; setpriv --reuid "$user" --regid "$user" --clear-groups "$@"; }

relay() { # relay ODD REAL: the same conversation at a path that tells nothing
    socat "UNIX-LISTEN:$1,fork,mode=777" "UNIX-CONNECT:$2" &
}

wait_for() { # wait_for PATH [SECONDS]
    n=0
    until [ -S "$1" ]; do
        n=$((n + 2))
        [ $n -gt $((${2:-60} * 5)) ] && { echo "no socket $1"; return 1; }
        sleep 0.2
    done
}

# --- databases and caches

serve_postgres() {
    mkdir -p "$W/pg" /run/postgresql && chown postgres "$W/pg" /run/postgresql
    asuser postgres /usr/lib/postgresql/15/bin/initdb -N -D "$W/pg" -A trust
    asuser postgres /usr/lib/postgresql/15/bin/postgres -D "$W/pg" -c listen_addresses= -c fsync=off \
        -c unix_socket_directories=/run/postgresql &
    wait_for /run/postgresql/.s.PGSQL.5432 120
    relay /tmp/odd/.s.PGSQL.1 /tmp/odd/db1
    relay /tmp/odd/db1 /run/postgresql/.s.PGSQL.5432
}
talk_postgres() {
    psql -h /run/postgresql -U postgres -c 'create table t (id int primary key, name text)' \
        -c "insert into t values (1, 'one'), (2, 'two')" -c 'select * from t order by id' -c 'select nonsense' \
        -c '\copy t to stdout'
    python3 - <<'P'
import psycopg2
c = psycopg2.connect(host="/run/postgresql", user="postgres")
k = c.cursor()
k.execute("select name from t where id = %s", (2,)); print(k.fetchall())
k.execute("prepare p as select 1"); k.execute("execute p"); c.commit(); c.close()
P
    psql -h /tmp/odd -p 1 -U postgres -c 'select 42 as answer'
}

serve_mariadb() {
    mkdir -p "$W/my" /run/mysqld
    mariadb-install-db --user=root --datadir="$W/my" --auth-root-authentication-method=normal --skip-test-db
    mariadbd --user=root --datadir="$W/my" --socket=/run/mysqld/mysqld.sock --skip-networking \
        --innodb-buffer-pool-size=8M --pid-file="$W/my.pid" &
    wait_for /run/mysqld/mysqld.sock 120
    relay /tmp/odd/db2 /run/mysqld/mysqld.sock
}
talk_mariadb() {
    mariadb --socket=/run/mysqld/mysqld.sock -e "create database d; use d; create table t (i int, s varchar(9));
        insert into t values (1,'one'),(2,'two'); select * from t; select nonsense from t" --force
    mariadb --socket=/tmp/odd/db2 -e 'select 42 as answer'
}

serve_redis() {
    mkdir -p /run/redis
    redis-server --port 0 --unixsocket /run/redis/redis-server.sock --unixsocket /run/redis/redis-server.sock \
        --save '' --dir "$W" &
    redis-server --port 0 --unixsocket /tmp/odd/cache1 --save '' --dir "$W" &
    wait_for /run/redis/redis-server.sock
}
talk_redis() {
    for s in /run/redis/redis-server.sock /tmp/odd/cache1; do
        redis-cli -s $s set greeting "hello world"
        redis-cli -s $s get greeting
        printf 'LPUSH l a b c\nLRANGE l 0 -1\nHELLO 3\nHSET h f v g w\nHGETALL h\nNONSENSE\n' | redis-cli -s $s
        printf 'PING\r\nINCR n\r\n*1\r\n$4\r\nPING\r\n' | timeout 2 nc -N -U $s
    done
}

serve_memcached() {
    mkdir -p /run/memcached
    memcached -u root -s /run/memcached/memcached.sock -m 8 &
    memcached -u root -s /tmp/odd/cache2 -m 8 &
    wait_for /run/memcached/memcached.sock
}
talk_memcached() {
    for s in /run/memcached/memcached.sock /tmp/odd/cache2; do
        printf 'set k 0 0 5\r\nhello\r\nget k\r\nincr k 1\r\ndelete k\r\nget k\r\nversion\r\nquit\r\n' | nc -N -U $s
    done
}

# --- web and application servers

serve_web() {
    mkdir -p /run/php /run/uwsgi/app/hello "$W/www" /run/nginx "$W/ng"
    echo '<?php header("X-A: b"); echo "hello ", $_SERVER["REQUEST_URI"], "\n"; error_log("logged"); ?>' >"$W/www/a.php"
    cat >"$W/app.py" <<'P'
def application(env, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"hello from " + env["PATH_INFO"].encode() + b"\n"]
P
    cat >"$W/asgi.py" <<'P'
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"hello": "asgi"}'})
P
    printf '[global]\nerror_log=%s/fpm.log\ndaemonize=no\n[www]\nlisten=/run/php/php8.2-fpm.sock\npm=static\npm.max_children=1\n[odd]\nlisten=/tmp/odd/app1\npm=static\npm.max_children=1\n' "$W" >"$W/fpm.conf"
    php-fpm8.2 -F -R -y "$W/fpm.conf" &
    (cd "$W" && uwsgi --plugin python3 --socket /run/uwsgi/app/hello/socket --socket /tmp/odd/app2 \
        --wsgi-file app.py --need-app) &
    (cd "$W" && gunicorn -b unix:/run/gunicorn.sock app:application) &
    (cd "$W" && python3 -m uvicorn --lifespan off --uds /run/uvicorn.sock asgi:app) &
    cat >"$W/nginx.conf" <<N
user root; daemon off; pid $W/nginx.pid; error_log /dev/stderr;
events {}
http {
  access_log off; client_body_temp_path $W/ng; proxy_temp_path $W/ng; fastcgi_temp_path $W/ng; uwsgi_temp_path $W/ng; scgi_temp_path $W/ng;
  server {
    listen unix:/run/nginx/web.sock;
    location /php/ { fastcgi_pass unix:/run/php/php8.2-fpm.sock; include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME $W/www/a.php; }
    location /oddphp/ { fastcgi_pass unix:/tmp/odd/app1; include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME $W/www/a.php; }
    location /uwsgi/ { uwsgi_pass unix:/run/uwsgi/app/hello/socket; include /etc/nginx/uwsgi_params; }
    location /odduwsgi/ { uwsgi_pass unix:/tmp/odd/app2; include /etc/nginx/uwsgi_params; }
    location /gunicorn/ { proxy_pass http://unix:/run/gunicorn.sock; }
    location /uvicorn/ { proxy_pass http://unix:/run/uvicorn.sock; }
    location / { return 204; }
  }
  server { listen unix:/tmp/odd/h2 http2; location / { return 200 "over http2\n"; } }
}
N
    nginx -c "$W/nginx.conf" &
    wait_for /run/nginx/web.sock; wait_for /run/gunicorn.sock; wait_for /run/uvicorn.sock
}
talk_web() {
    for p in php oddphp uwsgi odduwsgi gunicorn uvicorn nothing; do
        curl -s -m 20 --unix-socket /run/nginx/web.sock "http://x/$p/page?q=1"
    done
    curl -s -m 20 --unix-socket /run/nginx/web.sock -d 'name=value&a=b' http://x/php/form
    curl -s -m 20 --unix-socket /run/nginx/web.sock -d 'name=value&a=b' http://x/uwsgi/form
    curl -s -m 20 --http2-prior-knowledge --unix-socket /tmp/odd/h2 http://x/two
}

serve_docker() {
    mkdir -p /sys/fs/cgroup && mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
    dockerd -H unix:///run/docker.sock --bridge=none --iptables=false --ip6tables=false --data-root="$W/docker" \
        --exec-root=/run/docker -s vfs --pidfile "$W/docker.pid" &
    wait_for /run/docker.sock 90
    relay /tmp/odd/api /run/docker.sock
}
talk_docker() {
    docker version
    docker ps
    curl -s -m 20 --unix-socket /tmp/odd/api http://d/v1.41/info >/dev/null
    mkdir -p "$W/img/bin" && cp /bin/busybox "$W/img/bin/" && tar -C "$W/img" -c . | docker import - bb
    timeout 60 docker run --rm --network none bb /bin/busybox echo from a container
    ctr -a /run/docker/containerd/containerd.sock version
    ctr -a /run/docker/containerd/containerd.sock namespaces ls
}

serve_cups() {
    mkdir -p /run/cups "$W/cups" /var/spool/cups /var/cache/cups /var/log/cups
    printf 'Listen /run/cups/cups.sock\nDefaultAuthType Basic\n<Location />\nOrder allow,deny\nAllow all\n</Location>\n<Location /admin>\nOrder allow,deny\nAllow all\n</Location>\n' >"$W/cupsd.conf"
    cupsd -f -c "$W/cupsd.conf" &
    wait_for /run/cups/cups.sock
}
talk_cups() {
    lpstat -h /run/cups/cups.sock -r
    lpadmin -h /run/cups/cups.sock -p test -E -v file:/dev/null
    lpstat -h /run/cups/cups.sock -p -d
}

# --- buses and system services

serve_dbus() {
    mkdir -p /run/dbus
    dbus-daemon --system --fork
    dbus-daemon --session --fork --address=unix:path=/tmp/odd/bus
}
talk_dbus() {
    busctl list >/dev/null
    dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetId
    python3 - <<'P'
import dbus
bus = dbus.SystemBus()
o = bus.get_object("org.freedesktop.DBus", "/org/freedesktop/DBus", introspect=False)
print(o.ListNames(dbus_interface="org.freedesktop.DBus"))
m = dbus.lowlevel.MethodCallMessage("org.example.Nobody", "/org/example", "org.example.Files", "Take")
m.append(dbus.types.UnixFd(open("/etc/passwd")), "a file", signature="hs")
try: bus.send_message_with_reply_and_block(m, 2)
except dbus.DBusException as e: print(e)
P
    DBUS_SESSION_BUS_ADDRESS=unix:path=/tmp/odd/bus gdbus call --session --dest org.freedesktop.DBus \
        --object-path / --method org.freedesktop.DBus.ListNames
    DBUS_SESSION_BUS_ADDRESS=unix:path=/tmp/odd/bus gdbus emit --session --object-path /a --signal org.example.Sig 1 "'x'"
}

serve_logs() {
    mkdir -p /run/systemd/journal /run/log
    /lib/systemd/systemd-journald &
    wait_for /run/systemd/journal/socket
    [ -S /dev/log ] || ln -sf /run/systemd/journal/dev-log /dev/log
    socat -u UNIX-RECV:/tmp/odd/log OPEN:/dev/null &
    mkdir -p /run/systemd
    socat -u UNIX-RECV:/run/systemd/notify OPEN:/dev/null &
    socat -u UNIX-RECV:/tmp/odd/ready OPEN:/dev/null &
    sleep 0.5
}
talk_logs() {
    logger -t hello -p user.warning "a line for syslog"
    logger -u /tmp/odd/log -t odd -p daemon.info "an odd one"
    printf 'MESSAGE=native hello\nPRIORITY=4\nUNIT=x.service\n' | logger --journald
    python3 -c 'from systemd import journal; journal.send("two\nlines", FIELD2="v", CODE_FUNC="f")'
    echo "through stdout" | systemd-cat -t cat -p info
    NOTIFY_SOCKET=/run/systemd/notify systemd-notify --ready --status="Serving 3 clients" --no-block
    NOTIFY_SOCKET=/tmp/odd/ready systemd-notify --ready --no-block
}

serve_varlink() {
    mkdir -p /run/systemd/userdb
    systemd-socket-activate -l /run/systemd/userdb/io.systemd.Multiplexer /lib/systemd/systemd-userdbd &
    systemd-socket-activate -l /tmp/odd/io /lib/systemd/systemd-userdbd &
    wait_for /run/systemd/userdb/io.systemd.Multiplexer
}
talk_varlink() {
    userdbctl user root
    userdbctl group adm
    printf '{"method":"io.systemd.UserDatabase.GetUserRecord","parameters":{"userName":"root","service":"io.systemd.Multiplexer"}}\0' |
        timeout 3 nc -U /tmp/odd/io
}

serve_chrony() {
    install -d -m 750 /run/chrony "$W/chrony" /tmp/oddtime
    printf 'local stratum 7\nserver 127.0.0.9 iburst\nport 0\nbindcmdaddress /run/chrony/chronyd.sock\ncmdport 0\npidfile %s/c.pid\ndriftfile %s/chrony/drift\n' "$W" "$W" >"$W/chrony.conf"
    chronyd -x -d -u root -f "$W/chrony.conf" &
    printf 'local stratum 5\nport 0\nbindcmdaddress /tmp/oddtime/t\ncmdport 0\npidfile %s/c2.pid\n' "$W" >"$W/chrony2.conf"
    chronyd -x -d -u root -f "$W/chrony2.conf" &
    wait_for /run/chrony/chronyd.sock
}
talk_chrony() {
    for c in tracking sources sourcestats activity serverstats clients ntpdata 'selectdata' 'add server 127.0.0.10' nonsense rtcdata smoothing; do
        timeout 10 chronyc -h /run/chrony/chronyd.sock $c
    done
    timeout 10 chronyc -h /tmp/oddtime/t tracking
}

serve_ptp() {
    ip link add veth0 type veth peer name veth1
    ip link set veth0 up; ip link set veth1 up
    printf '[global]\nuds_address /run/ptp4l\ntime_stamping software\n[veth0]\n' >"$W/ptp.conf"
    ptp4l -f "$W/ptp.conf" -m &
    printf '[global]\nuds_address /tmp/odd/clock\nuds_ro_address /tmp/odd/clockro\ntime_stamping software\n[veth1]\n' >"$W/ptp2.conf"
    ptp4l -f "$W/ptp2.conf" -m &
    wait_for /run/ptp4l 20
}
talk_ptp() {
    timeout 20 pmc -u -b 0 -s /run/ptp4l 'GET DEFAULT_DATA_SET' 'GET CURRENT_DATA_SET' 'GET PORT_DATA_SET' 'GET TIME_STATUS_NP'
    timeout 20 pmc -u -b 0 -i /tmp/odd/pmc1 -s /tmp/odd/clock 'GET CLOCK_DESCRIPTION'
}

serve_wpa() {
    ip link add veth2 type veth peer name veth3; ip link set veth2 up; ip link set veth3 up
    printf 'ctrl_interface=/run/wpa_supplicant\nap_scan=0\nnetwork={\n key_mgmt=IEEE8021X\n eap=MD5\n identity="me"\n password="secret"\n}\n' >"$W/wpa.conf"
    wpa_supplicant -Dwired -iveth2 -c "$W/wpa.conf" -g /run/wpa_global &
    printf 'ctrl_interface=/tmp/odd/w\nap_scan=0\n' >"$W/wpa2.conf"
    wpa_supplicant -Dwired -iveth3 -c "$W/wpa2.conf" &
    wait_for /run/wpa_supplicant/veth2 20
}
talk_wpa() {
    for c in ping status list_networks 'set_network 0 password "hidden"' 'get_network 0 key_mgmt' 'log_level' nonsense; do
        timeout 10 wpa_cli -p /run/wpa_supplicant -i veth2 $c
    done
    (sleep 2; echo reassociate; sleep 1; echo quit) | timeout 10 wpa_cli -p /run/wpa_supplicant -i veth2
    timeout 10 wpa_cli -p /tmp/odd/w -i veth3 status
    timeout 10 wpa_cli -g /run/wpa_global interface
}

serve_ldap() {
    mkdir -p "$W/ldap" /run/slapd
    printf 'include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\ndatabase mdb\nmaxsize 1048576\nsuffix "dc=x"\nrootdn "cn=a,dc=x"\nrootpw s\ndirectory %s/ldap\n' "$W" >"$W/slapd.conf"
    slapd -d 0 -f "$W/slapd.conf" -h "ldapi://%2Frun%2Fslapd%2Fldapi ldapi://%2Ftmp%2Fodd%2Fdir" &
    wait_for /run/slapd/ldapi 30
}
talk_ldap() {
    ldapsearch -x -H ldapi://%2Frun%2Fslapd%2Fldapi -b '' -s base namingContexts
    printf 'dn: dc=x\nobjectClass: organization\nobjectClass: dcObject\no: x\ndc: x\n' |
        ldapadd -x -D cn=a,dc=x -w s -H ldapi://%2Frun%2Fslapd%2Fldapi
    ldapsearch -x -H ldapi://%2Ftmp%2Fodd%2Fdir -b dc=x '(o=*)'
}

# --- keys

serve_keys() {
    export GNUPGHOME=$W/gnupg; mkdir -m 700 -p "$GNUPGHOME"
    printf 'HostKey %s/hostkey\nUsePAM no\nPermitRootLogin yes\nAuthorizedKeysFile %s/id.pub\nStrictModes no\n' "$W" "$W" >"$W/sshd.conf"
    ssh-keygen -q -t ed25519 -N '' -f "$W/hostkey"; ssh-keygen -q -t ed25519 -N '' -f "$W/id" -C me@here
    mkdir -p /run/sshd
    socat UNIX-LISTEN:/tmp/odd/shell,fork "EXEC:/usr/sbin/sshd -i -f $W/sshd.conf" &
}
talk_keys() {
    ssh-agent -a /tmp/odd/agent sleep 40 &
    eval "$(ssh-agent)"
    ssh-add "$W/id"; ssh-add -l; ssh-add -L
    echo data >"$W/data"; ssh-keygen -Y sign -f "$W/id.pub" -n file "$W/data"
    ssh-add -x </dev/null
    timeout 30 ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o "ProxyCommand=nc -U /tmp/odd/shell" root@x echo over ssh
    ssh-add -D
    kill "$SSH_AGENT_PID"
    SSH_AUTH_SOCK=/tmp/odd/agent ssh-add "$W/id"
    SSH_AUTH_SOCK=/tmp/odd/agent ssh-add -l
    timeout 60 gpg --batch --passphrase '' --quick-gen-key me@example.org ed25519 sign never
    echo text | timeout 30 gpg --batch --clearsign
    gpg-connect-agent 'getinfo version' 'keyinfo --list' /bye
    gpgconf --kill all
}

# --- desktop

serve_x11() {
    mkdir -p -m 1777 /tmp/.X11-unix
    Xvfb :7 -nolisten tcp -screen 0 640x480x24 &
    wait_for /tmp/.X11-unix/X7 30
}
talk_x11() {
    export DISPLAY=:7
    xdpyinfo >/dev/null
    xprop -root -f ANSWER 8s -set ANSWER 42
    xprop -root ANSWER
    xlsclients
}

serve_wayland() {
    export XDG_RUNTIME_DIR=/run/user/0; mkdir -m 700 -p $XDG_RUNTIME_DIR
    weston --backend=headless-backend.so --socket=wayland-7 --no-config --idle-time=0 --width=64 --height=64 &
    wait_for /run/user/0/wayland-7 60
}
talk_wayland() {
    export XDG_RUNTIME_DIR=/run/user/0 WAYLAND_DISPLAY=wayland-7
    timeout 20 wayland-info >/dev/null
    timeout 3 weston-simple-shm
}

serve_sound() {
    export XDG_RUNTIME_DIR=/run/user/0; mkdir -m 700 -p $XDG_RUNTIME_DIR/pulse
    pulseaudio -n --exit-idle-time=-1 --disable-shm=true --load=module-null-sink \
        --load='module-native-protocol-unix auth-anonymous=1 socket=/run/user/0/pulse/native' \
        --load='module-native-protocol-unix auth-anonymous=1 socket=/tmp/odd/sound' &
    pipewire &
    wait_for /run/user/0/pipewire-0 30; wait_for /run/user/0/pulse/native 30
    printf 'bind_to_address "/run/mpd/socket"\nbind_to_address "/tmp/odd/music"\nmusic_directory "%s/music"\ndb_file "%s/mpd.db"\naudio_output {\n type "null"\n name "n"\n}\n' "$W" "$W" >"$W/mpd.conf"
    mkdir -p /run/mpd "$W/music"
    mpd --no-daemon "$W/mpd.conf" &
    wait_for /run/mpd/socket 30
}
talk_sound() {
    export XDG_RUNTIME_DIR=/run/user/0
    timeout 20 pactl -s unix:/run/user/0/pulse/native list short sinks
    timeout 20 pactl -s unix:/run/user/0/pulse/native set-sink-volume 0 50%
    head -c 20000 /dev/zero | timeout 5 pacat -s unix:/run/user/0/pulse/native --raw
    timeout 20 pactl -s unix:/tmp/odd/sound info
    timeout 20 pw-cli ls Core
    timeout 20 pw-cli info 0
    for s in /run/mpd/socket /tmp/odd/music; do
        timeout 10 mpc --host=$s status; timeout 10 mpc --host=$s stats; timeout 10 mpc --host=$s add nothing
    done
}

# --- mail, messages, machines

serve_mail() {
    mkdir -p /run/opendkim "$W/dovecot" /run/dovecot
    printf 'Domain example.org\nMode v\nSyslog no\nBackground no\n' >"$W/dkim.conf"
    opendkim -f -x "$W/dkim.conf" -p local:/run/opendkim/opendkim.sock &
    opendkim -f -x "$W/dkim.conf" -p local:/tmp/odd/filter &
    cat >"$W/dovecot.conf" <<D
base_dir = /run/dovecot
state_dir = $W/dovecot
log_path = /dev/stderr
protocols = lmtp
ssl = no
mail_location = maildir:$W/mail/%u
passdb { driver = static
 args = nopassword=y }
userdb { driver = static
 args = uid=dovenull gid=dovenull home=$W/mail/%u allow_all_users=yes }
service lmtp { unix_listener lmtp { mode = 0666
 } }
D
    mkdir -p -m 777 "$W/mail"
    dovecot -F -c "$W/dovecot.conf" &
    wait_for /run/dovecot/lmtp 30; wait_for /run/opendkim/opendkim.sock 30
    relay /tmp/odd/letters /run/dovecot/lmtp
}
talk_mail() {
    python3 - <<'P'
import smtplib
for path in ("/run/dovecot/lmtp", "/tmp/odd/letters"):
    s = smtplib.LMTP(path, timeout=20)
    print(s.sendmail("a@x", ["b@x"], "Subject: hello\r\n\r\nbody\r\n")); s.quit()
P
    for s in /run/opendkim/opendkim.sock /tmp/odd/filter; do
        cat >"$W/mt.lua" <<L
conn = mt.connect("local:$s", 5, 1)
mt.conninfo(conn, "localhost", "127.0.0.1")
mt.helo(conn, "me"); mt.mailfrom(conn, "<a@example.org>"); mt.rcptto(conn, "<b@example.org>")
mt.header(conn, "From", "a@example.org"); mt.header(conn, "Subject", "hi"); mt.eoh(conn)
mt.bodystring(conn, "text\r\n"); mt.eom(conn); mt.disconnect(conn)
L
        timeout 20 miltertest -s "$W/mt.lua"
    done
}

serve_queues() {
    mkdir -p /run/mosquitto /run/zmq
    printf 'listener 0 /run/mosquitto/mqtt.sock\nlistener 0 /tmp/odd/things\nallow_anonymous true\nuser root\n' >"$W/mq.conf"
    mosquitto -c "$W/mq.conf" &
    wait_for /run/mosquitto/mqtt.sock
}
talk_queues() {
    for s in /run/mosquitto/mqtt.sock /tmp/odd/things; do
        timeout 8 mosquitto_sub --unix $s -t 'a/#' -C 1 -q 1 & sleep 2
        timeout 8 mosquitto_pub --unix $s -t a/b -m hello -q 1; wait $!
    done
    for s in /run/zmq/ipc.sock /tmp/odd/z; do
        python3 - $s <<'P'
import sys, zmq
c = zmq.Context(); r = c.socket(zmq.REP); q = c.socket(zmq.REQ)
r.bind("ipc://" + sys.argv[1]); q.connect("ipc://" + sys.argv[1])
q.send(b"question"); print(r.recv()); r.send(b"answer"); print(q.recv())
P
    done
}

serve_machine() {
    mkdir -p /run/vm
    qemu-system-x86_64 -M none -display none -S -qmp unix:/run/vm/qmp.sock,server=on,wait=off \
        -chardev socket,id=m,path=/tmp/odd/monitor,server=on,wait=off -mon chardev=m,mode=control \
        -vnc unix:/run/vm/vnc.sock &
    wait_for /run/vm/qmp.sock 60
    qemu-system-x86_64 -M none -display none -S -spice unix=on,addr=/run/vm/spice.sock,disable-ticketing=on &
    diod -f -n -L /dev/stderr -l /run/diod.sock -e "$W" &
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$W/k.pem" -out "$W/c.pem" -subj /CN=x -days 9
    (cd "$W" && openssl s_server -unix /tmp/odd/secure -cert c.pem -key k.pem -www) &
    sleep 3
}
talk_machine() {
    for s in /run/vm/qmp.sock /tmp/odd/monitor; do
        printf '{"execute":"qmp_capabilities"}\n{"execute":"query-status","id":1}\n{"execute":"cont"}\n{"execute":"nonsense"}\n' |
            timeout 5 nc -U $s
    done
    python3 - <<'P'
import socket, struct
s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect("/run/vm/vnc.sock")
print(s.recv(12)); s.sendall(b"RFB 003.008\n"); print(s.recv(9)); s.sendall(b"\1"); print(s.recv(4)); s.sendall(b"\1")
print(s.recv(99)); s.sendall(struct.pack(">BxHi", 2, 1, 0)); s.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 64, 64)); print(len(s.recv(9999)))
P
    python3 - <<'P'
import socket, struct
s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect("/run/vm/spice.sock")
body = struct.pack("<IBBIII", 0, 1, 0, 1, 0, 18) + struct.pack("<I", 0b1011)
s.sendall(b"REDQ" + struct.pack("<III", 2, 2, len(body)) + body); print(len(s.recv(999)))
s.sendall(struct.pack("<I", 1) + bytes(128)); print(s.recv(99))
P
    python3 - <<'P'
import socket, struct
s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect("/run/diod.sock")
def say(kind, tag, body):
    s.sendall(struct.pack("<IBH", 7 + len(body), kind, tag) + body); print(s.recv(999))
say(100, 0xFFFF, struct.pack("<IH", 8192, 8) + b"9P2000.L")
say(104, 1, struct.pack("<IIHHI", 1, 0xFFFFFFFF, 4, 0, 0) + b"root"[:0])
P
    (sleep 1; printf 'GET / HTTP/1.0\r\n\r\n'; sleep 1) | timeout 8 openssl s_client -unix /tmp/odd/secure >/dev/null
}

ALL="postgres mariadb redis memcached web docker cups dbus logs varlink chrony ptp wpa ldap keys x11 wayland sound mail queues machine"
