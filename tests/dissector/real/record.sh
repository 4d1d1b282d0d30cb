#!/bin/sh
# In a guest: run the programs of programs.sh named as arguments (default: all) and capture them to $OUT.
cd "$(dirname "$0")/../../.." || exit 1
W=/dev/shm/w
OUT=${OUT:-.cache/real}
mkdir -p $W "$OUT" /tmp/odd
chmod 777 /tmp/odd $W
for place in /etc /var /root /home; do
    mkdir -p "/dev/shm/over$place/up" "/dev/shm/over$place/work"
    mount -t overlay overlay -o "lowerdir=$place,upperdir=/dev/shm/over$place/up,workdir=/dev/shm/over$place/work" $place
done
rm -rf /var/run; ln -s /run /var/run
. tests/dissector/real/programs.sh
names=${*:-$ALL}
now() { cut -d' ' -f1 /proc/uptime; }
# Compiling the probe takes long where guests are emulated: the servers start meanwhile.
python3 -m unixsock_bpf dump -w /dev/shm/all.pcapng --events 2>"$OUT/dump.log" &
dump=$!
for name in $names; do
    echo "$(now) serve $name"
    eval "serve_$name" </dev/null >"$OUT/serve-$name.log" 2>&1
done
echo "$(now) wait for the capture"
python3 - <<'P'
import os, socket, time
r, s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
r.bind("/tmp/knock")
for _ in range(900):
    s.sendto(b"knock", "/tmp/knock"); r.recv(9); time.sleep(0.3)
    if os.path.exists("/dev/shm/all.pcapng") and b"knock" in open("/dev/shm/all.pcapng", "rb").read(): break
else: print("the capture sees nothing")
P
export W
for name in $names; do
    echo "$(now) talk $name"
    timeout 120 sh -c ". tests/dissector/real/programs.sh; talk_$name" </dev/null >"$OUT/talk-$name.log" 2>&1
    cp /dev/shm/all.pcapng "$OUT/all.pcapng"
done
sleep 1
kill -TERM $dump; sleep 4
cp /dev/shm/all.pcapng "$OUT/all.pcapng"
cp /dev/shm/home/*.log "$OUT" 2>/dev/null
echo "$(now) done"
