#!/bin/sh
# relayed.sh OUT USER_LAND NAME...: real programs in a chroot of USER_LAND (as __main__.py makes it), in namespaces of
# their own, with a relay (relay.py) between them that records them in OUT.  Needs root, and no guest:
#   unshare --mount --net --pid --fork --kill-child sh tests/dissector/real/relayed.sh /tmp/out .cache/roots/real ipp
# NAME is one of: php lmtp ipp wayland 9p docker podman containerd i3.
HERE=$(cd "$(dirname "$0")/../../.." && pwd)

if [ "$1" != --inside ]; then
    out=$1 root=$2
    shift 2
    mount --make-rprivate /
    for place in tmp run dev/shm var/log mnt/project; do mkdir -p "$root/$place"; done
    mount --rbind /dev "$root/dev"
    mount --rbind /sys "$root/sys"
    mount -t proc proc "$root/proc"
    for place in tmp run dev/shm var/log; do mount -t tmpfs tmpfs "$root/$place"; done
    chmod 1777 "$root/tmp"
    mount --bind "$HERE" "$root/mnt/project"
    chroot "$root" sh /mnt/project/tests/dissector/real/relayed.sh --inside "$@"
    mkdir -p "$out" && cp "$root"/tmp/out/* "$out"
    exit
fi

shift
. "$HERE/tests/dissector/real/programs.sh"
export W=/dev/shm/w HOME=/root
mkdir -p $W /tmp/odd /tmp/out
chmod 777 $W /tmp/odd

rec() { # rec NAME LISTEN CONNECT
    python3 "$HERE/tests/dissector/real/relay.py" "/tmp/out/$1.pcapng" "$2" "$3" &
    wait_for "$2" 10
}

say_php() {
    mkdir -p /run/php "$W/www"
    echo '<?php header("X-A: b"); echo "hello ", $_SERVER["REQUEST_URI"], "\n"; ?>' >"$W/www/a.php"; chmod -R a+rX $W
    printf '[global]\nerror_log=/dev/stderr\ndaemonize=no\n[www]\nlisten=/run/php/php8.2-fpm.sock\nuser=root\ngroup=root\npm=static\npm.max_children=1\n' >"$W/fpm.conf"
    php-fpm8.2 -F -R -n -y "$W/fpm.conf" & wait_for /run/php/php8.2-fpm.sock 20
    rec fastcgi /tmp/odd/app1 /run/php/php8.2-fpm.sock
    cat >"$W/nginx.conf" <<N
user root; daemon off; pid $W/nginx.pid; error_log /dev/stderr;
events {}
http { access_log off; client_body_temp_path $W/ng1; fastcgi_temp_path $W/ng2; proxy_temp_path $W/ng3; uwsgi_temp_path $W/ng4; scgi_temp_path $W/ng5;
 server { listen unix:/run/nginx.sock; location / { include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME $W/www/a.php; fastcgi_pass unix:/tmp/odd/app1; } } }
N
    nginx -c "$W/nginx.conf" & wait_for /run/nginx.sock 10
    curl -s --unix-socket /run/nginx.sock http://h/php/page; sleep 1
}

say_lmtp() {
    mkdir -p "$W/dovecot" /run/dovecot; mkdir -p -m 777 "$W/mail"
    cat >"$W/dovecot.conf" <<D
base_dir = /run/dovecot
state_dir = $W/dovecot
log_path = /dev/stderr
protocols = lmtp
ssl = no
mail_location = maildir:$W/mail/%u
first_valid_uid = 1
passdb {
 driver = static
 args = nopassword=y
}
userdb {
 driver = static
 args = uid=mail gid=mail home=$W/mail/%u allow_all_users=yes
}
service lmtp {
 unix_listener lmtp {
  mode = 0666
 }
}
D
    dovecot -F -c "$W/dovecot.conf" & wait_for /run/dovecot/lmtp 20
    rec lmtp /tmp/odd/letters /run/dovecot/lmtp
    python3 - <<'P'
import smtplib
s = smtplib.LMTP("/tmp/odd/letters", timeout=20)
print(s.sendmail("a@x", ["b@x"], "Subject: hello\r\n\r\nbody\r\n")); s.quit()
P
    sleep 1
}

say_ipp() {
    mkdir -p /run/cups "$W/cups"
    printf 'Listen /run/cups/cups.sock\nLogLevel warn\nDefaultAuthType None\n<Location />\nAllow all\n</Location>\n' >"$W/cupsd.conf"
    printf 'SystemGroup root\nErrorLog stderr\nAccessLog stderr\nPageLog stderr\nCacheDir %s/cups\nStateDir /run/cups\nServerRoot %s/cups\nRequestRoot %s/cups\nTempDir %s/cups\n' $W $W $W $W >"$W/cups-files.conf"
    cupsd -f -c "$W/cupsd.conf" -s "$W/cups-files.conf" & wait_for /run/cups/cups.sock 20
    rec ipp /tmp/odd/printer /run/cups/cups.sock
    lpstat -h /tmp/odd/printer -r; lpadmin -h /tmp/odd/printer -p paper -E -v file:///dev/null; lpstat -h /tmp/odd/printer -p; sleep 1
}

say_wayland() {
    export XDG_RUNTIME_DIR=/run/user/0; mkdir -p /run/user/0; chmod 700 /run/user/0
    weston --backend=headless-backend.so --socket=wayland-7 --no-config --idle-time=0 --width=64 --height=64 & wait_for /run/user/0/wayland-7 30
    rec wayland /run/user/0/desk /run/user/0/wayland-7
    WAYLAND_DISPLAY=desk timeout 10 wayland-info | head -5; sleep 1
}

say_9p() {
    diod -f -n -L /dev/stderr -l /run/diod.sock -e "$W" & wait_for /run/diod.sock 10
    rec 9p /tmp/odd/files /run/diod.sock
    timeout 8 diodls -s /tmp/odd/files -a "$W" /; sleep 1
}

say_docker() {
    mkdir -p $W/d; dockerd -H unix:///run/docker.sock --iptables=false --ip-masq=false --bridge=none --data-root $W/d --exec-root $W/x -p $W/d.pid --storage-driver vfs --ip6tables=false --ip-forward=false --userland-proxy=false & wait_for /run/docker.sock 40
    sleep 5
    rec docker /tmp/odd/boxes /run/docker.sock
    timeout 20 docker -H unix:///tmp/odd/boxes version; timeout 20 docker -H unix:///tmp/odd/boxes ps -a; sleep 1
}

say_podman() { # crun wants one kind of cgroups; a container of busybox, without a network
    umount -l /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
    mkdir -p $W/box/bin /run/podman /etc/containers; cp "$(command -v busybox)" $W/box/bin; ln -s busybox $W/box/bin/sh
    printf '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="none"\nruntime="crun"\n[containers]\ncgroups="disabled"\nlog_driver="k8s-file"\ndefault_ulimits=["nofile=1024:1024","nproc=4096:4096"]\n' >$W/containers.conf
    export CONTAINERS_CONF=$W/containers.conf
    pod() { podman --root $W/pod --runroot $W/podrun --storage-driver vfs "$@"; }
    tar -C $W/box -c . | pod import - box
    pod system service -t 0 unix:///run/podman/podman.sock & wait_for /run/podman/podman.sock 40
    rec podman /tmp/odd/pods /run/podman/podman.sock
    d="timeout 40 docker -H unix:///tmp/odd/pods"
    printf 'line\n' | $d run -i --rm --network none box /bin/sh -c 'read l; echo "out $l"; echo "err $l" >&2; echo more'
    $d run -d --name sleeper --network none box /bin/busybox sleep 60
    printf 'word\n' | $d exec -i sleeper /bin/sh -c 'read w; echo "exec $w"; echo "oops" >&2; exit 3'
    $d logs sleeper; $d kill sleeper; $d rm sleeper; sleep 1
}

say_containerd() { # at a path that tells nothing
    printf 'version = 2\nroot = "%s/c"\nstate = "%s/s"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "/tmp/odd/boxd"\n' $W $W >$W/containerd.toml
    containerd -c $W/containerd.toml & wait_for /tmp/odd/boxd 40
    rec containerd /tmp/odd/boxd2 /tmp/odd/boxd
    c="timeout 20 ctr -a /tmp/odd/boxd2"
    $c version; $c namespaces create one; $c namespaces ls; $c namespaces create one; $c -n one containers info nothing
    $c -n one images ls; sleep 1
}

say_i3() {
    mkdir -p /run/user/1000/i3
    Xvfb :77 -screen 0 320x240x8 -nolisten tcp & sleep 2
    printf 'font pango:monospace 8\nipc-socket /run/user/1000/i3/ipc-socket.77\n' >$W/i3.conf
    DISPLAY=:77 i3 -c $W/i3.conf & wait_for /run/user/1000/i3/ipc-socket.77 20
    rec i3 /tmp/odd/tiles /run/user/1000/i3/ipc-socket.77
    m="i3-msg -s /tmp/odd/tiles"
    $m -t get_version; $m -t get_workspaces; $m nop; $m 'nonsense here'
    timeout 3 $m -t subscribe '["workspace"]' & sleep 1; $m workspace 3; sleep 1
}

for name in "$@"; do (say_$name) >"/tmp/out/$name.log" 2>&1 </dev/null; done
