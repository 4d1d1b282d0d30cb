#!/bin/sh
# relayed.sh OUT USER_LAND NAME...: real programs in a chroot of USER_LAND (as __main__.py makes it), in namespaces of
# their own, with a relay (relay.py) between them that records them in OUT.  Needs root, and no guest:
#   unshare --mount --net --pid --fork --kill-child sh tests/dissector/real/relayed.sh /tmp/out .cache/roots/real ipp
# NAME is one of: php lmtp ipp wayland 9p docker.
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

for name in "$@"; do (say_$name) >"/tmp/out/$name.log" 2>&1 </dev/null; done
