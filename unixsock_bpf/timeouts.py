"""Time limits, in seconds.  What only root's part waits for is in privilege/helper.py.

When the ring is read is not a limit but a trade: capture/read_scheduler.py.
"""

#: Wireshark's dumpcap opens its end of the fifo.
FIFO_OPEN_TIMEOUT_S = 30.0
#: A stopped capture waits for progress of a reader that does not read; then it gives up delivering.
READER_TIMEOUT_S = 0.8
#: The longest sleep of a capture's poller that has something to do each second.
IDLE_WAIT_S = 1.0
#: A record that the kernel has begun and not ended is looked at again.
UNFINISHED_RECORD_WAIT_S = 0.001
#: A capture that ends waits for such a record, in sleeps of this length altogether.
LAST_RECORD_WAIT_S = 0.05
#: The thread that holds a hook asks the kernel what the hook missed.
HOOK_ANSWER_TIMEOUT_S = 5.0
#: A privileged helper that refused, or whose caller has left, ends.
HELPER_EXIT_TIMEOUT_S = 5.0
#: A capture on another host gets a sign of life so often; without one for so long, that host ends it, and is
#: killed so long after that: nothing may be left there five seconds after a connection broke in silence.
HEARTBEAT_S = 0.5
HEARTBEAT_TIMEOUT_S = 3.5
SILENT_EXIT_TIMEOUT_S = 1.0
#: There, whatever still runs so long after the connection ended is killed; here, the command that led there.
REMOTE_EXIT_TIMEOUT_S = 4.0
#: A record waits for earlier ones of other hosts.
MERGE_WAIT_S = 0.5
#: A host lists its sockets for the selector in Wireshark's dialog.
REMOTE_ANSWER_TIMEOUT_S = 20.0
#: Docker or Podman lists its containers, where a filter or a process' container is asked for by name.
CONTAINER_ENGINE_TIMEOUT_S = 0.5
#: ``unixsock dump``, started for a Python program, ends in order; then it is killed.
DUMP_EXIT_TIMEOUT_S = 2.0
#: The thread behind a Python program's messages ends once everything that it waits for has.
MESSAGES_THREAD_TIMEOUT_S = 5.0
#: ``unixsock check`` waits for another program's answer.
CHECK_TIMEOUT_S = 30
#: tshark prints its folders: within a second, but on a busy emulated machine it took a minute.
TSHARK_FOLDERS_TIMEOUT_S = 300
#: A C compiler reads the kernel's headers: 3 s, but minutes on an emulated and busy machine.
HEADERS_COMPILE_TIMEOUT_S = 900.0
