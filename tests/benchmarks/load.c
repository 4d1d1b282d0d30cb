// SPDX-License-Identifier: GPL-2.0-or-later
/* The bench's traffic: the same bytes over AF_UNIX or TCP, as fast as the sockets go or at a given rate.
 *
 *   load [-o OPEN] FAMILY ADDRESS WORKLOAD SIZE SECONDS [NUMBER]
 *     FAMILY    unix (ADDRESS: a path), tcp (a port of 127.0.0.1)
 *     WORKLOAD  pingpong (NUMBER: on how many processors, 1 or 2; 0: wherever the kernel puts them),
 *               blast, paced (NUMBER: messages a second), many (NUMBER: connections), dgram
 *     OPEN      sockets to open beside, each having said something
 *     prints: messages, bytes, wall nanoseconds, own CPU nanoseconds
 *   load FAMILY ADDRESS mark COUNT
 *     sends COUNT messages that "count" does not count
 *   load count FILE OFFSET
 *     prints how many messages of ours begin, and how many end, in FILE from OFFSET on
 *   load segments FILE
 *     prints the TCP payload bytes in a pcap file of the loopback interface, without those of "mark"
 *
 * A child is the server.  Only what is measured goes through the sockets; both sides agree through pipes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Three bytes would be found in the numbers of ten thousand records by chance, too. */
#define BEGIN "<BEGIN#"
#define END "#END>"
#define MARK '_'
#define MOST_CONNECTIONS 1000
#define MOST_BYTES (1 << 18)

static char message[MOST_BYTES], received[MOST_BYTES];
static const char *family, *address;
static size_t size;
static double seconds, number;

static void fail(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static socklen_t resolve(struct sockaddr_storage *to)
{
	memset(to, 0, sizeof(*to));
	if (!strcmp(family, "tcp")) {
		struct sockaddr_in *in = (void *)to;
		in->sin_family = AF_INET;
		in->sin_port = htons(atoi(address));
		in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof(*in);
	}
	struct sockaddr_un *un = (void *)to;
	un->sun_family = AF_UNIX;
	strncpy(un->sun_path, address, sizeof(un->sun_path) - 1);
	return sizeof(*un);
}

static int new_socket(int type)
{
	bool tcp = !strcmp(family, "tcp");
	int on = 1, fd = socket(tcp ? AF_INET : AF_UNIX, type, 0);
	if (fd < 0)
		fail("socket");
	if (tcp) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
	return fd;
}

static int bound(int type)
{
	struct sockaddr_storage to;
	socklen_t len = resolve(&to);
	int fd = new_socket(type);
	if (to.ss_family == AF_UNIX)
		unlink(address);
	if (bind(fd, (void *)&to, len) || (type == SOCK_STREAM && listen(fd, MOST_CONNECTIONS)))
		fail(address);
	return fd;
}

static int connected(int type)
{
	struct sockaddr_storage to;
	socklen_t len = resolve(&to);
	int fd = new_socket(type);
	if (connect(fd, (void *)&to, len))
		fail(address);
	return fd;
}

static void say(int fd)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = send(fd, message + done, size - done, MSG_NOSIGNAL);
		if (n < 0)
			fail("send");
		done += n;
	}
}

/* One message; false at the end. */
static bool hear(int fd)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = recv(fd, received, size - done, 0);
		if (n < 0)
			fail("recv");
		if (!n)
			return false;
		done += n;
	}
	return true;
}

static void until_closed(int fd)
{
	ssize_t n;
	while ((n = recv(fd, received, sizeof(received), 0)) > 0)
		;
	if (n < 0)
		fail("recv");
}

/* What the server does with each workload, until the client is through. */
static void serve(const char *workload, int listener, int done)
{
	if (!strcmp(workload, "dgram")) {
		while (recv(listener, received, sizeof(received), 0) > 0)
			;
	} else if (!strcmp(workload, "many")) {
		struct epoll_event event = { .events = EPOLLIN }, events[64];
		int poll = epoll_create1(0), open = 0;
		for (; open < (int)number; open++) {
			event.data.fd = accept(listener, NULL, NULL);
			epoll_ctl(poll, EPOLL_CTL_ADD, event.data.fd, &event);
		}
		while (open) {
			int n = epoll_wait(poll, events, 64, -1);
			for (int i = 0; i < n; i++) {
				int fd = events[i].data.fd;
				if (hear(fd)) {
					say(fd);
				} else {
					close(fd);
					open--;
				}
			}
		}
	} else {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0)
			fail("accept");
		if (!strcmp(workload, "pingpong"))
			while (hear(fd))
				say(fd);
		else
			until_closed(fd);
	}
	if (write(done, "d", 1) != 1)
		fail("pipe");
}

static uint64_t pingpong(int fd, uint64_t end)
{
	uint64_t count = 0;
	do
		for (int i = 0; i < 16; i++, count += 2) {
			say(fd);
			hear(fd);
		}
	while (now() < end);
	return count;
}

static uint64_t blast(int fd, uint64_t end)
{
	uint64_t count = 0;
	do
		for (int i = 0; i < 32; i++, count++)
			say(fd);
	while (now() < end);
	return count;
}

static uint64_t paced(int fd, uint64_t begin, uint64_t end)
{
	uint64_t count = 0, t;
	while ((t = now()) < end) {
		uint64_t due = (t - begin) * 1e-9 * number;
		if (count >= due)
			usleep(1000);
		for (; count < due && now() < end; count++)
			say(fd);
	}
	return count;
}

static uint64_t many(const int *fds, uint64_t end)
{
	uint64_t count = 0;
	do {
		for (int i = 0; i < (int)number; i++)
			say(fds[i]);
		for (int i = 0; i < (int)number; i++)
			hear(fds[i]);
		count += 2 * (int)number;
	} while (now() < end);
	return count;
}

static uint64_t cpu(int who)
{
	struct rusage r;
	getrusage(who, &r);
	return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000ull +
	       (r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000ull;
}

/* Pairs of sockets that have said something, to stay open. */
static void open_others(long count)
{
	struct rlimit most = { count + 1000, count + 1000 };
	int pair[2];
	char byte = '.';
	if (setrlimit(RLIMIT_NOFILE, &most))
		fail("setrlimit");
	for (long i = 0; i < count; i += 2)
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) || send(pair[0], &byte, 1, 0) != 1 ||
		    recv(pair[1], &byte, 1, 0) != 1)
			fail("socketpair");
}

/* Has this process run on the first processor only, or on the last one. */
static void stay(bool first)
{
	cpu_set_t all, one;
	CPU_ZERO(&one);
	if (sched_getaffinity(0, sizeof(all), &all))
		fail("sched_getaffinity");
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &all) && (!first || !CPU_COUNT(&one))) {
			CPU_ZERO(&one);
			CPU_SET(i, &one);
		}
	if (sched_setaffinity(0, sizeof(one), &one))
		fail("sched_setaffinity");
}

static int run(const char *workload)
{
	int type = strcmp(workload, "dgram") ? SOCK_STREAM : SOCK_DGRAM;
	int fds[MOST_CONNECTIONS], count = strcmp(workload, "many") ? 1 : (int)number;
	int listener = bound(type), done[2];
	int processors = strcmp(workload, "pingpong") ? 0 : (int)number;
	char byte;
	if (count > MOST_CONNECTIONS || pipe(done))
		fail("pipe");
	pid_t server = fork();
	if (!server) {
		close(done[0]);
		if (processors)
			stay(processors == 1);
		serve(workload, listener, done[1]);
		_exit(0);
	}
	close(done[1]);
	close(listener);
	if (processors)
		stay(true);
	for (int i = 0; i < count; i++)
		fds[i] = connected(type);
	uint64_t begin = now(), end = begin + seconds * 1e9, said;
	if (!strcmp(workload, "pingpong"))
		said = pingpong(fds[0], end);
	else if (!strcmp(workload, "paced"))
		said = paced(fds[0], begin, end);
	else if (!strcmp(workload, "many"))
		said = many(fds, end);
	else
		said = blast(fds[0], end);
	if (type == SOCK_DGRAM && send(fds[0], "", 0, 0))
		fail("send");
	for (int i = 0; i < count; i++)
		close(fds[i]);
	if (read(done[0], &byte, 1) != 1)
		fail("the server died");
	uint64_t took = now() - begin;
	waitpid(server, NULL, 0);
	printf("%llu %llu %llu %llu\n", (unsigned long long)said, (unsigned long long)(said * size),
	       (unsigned long long)took, (unsigned long long)(cpu(RUSAGE_SELF) + cpu(RUSAGE_CHILDREN)));
	return 0;
}

static int mark(long count)
{
	int listener = bound(SOCK_STREAM), fd = connected(SOCK_STREAM), peer = accept(listener, NULL, NULL);
	memset(message, MARK, size = 64);
	for (long i = 0; i < count; i++) {
		say(fd);
		hear(peer);
	}
	return 0;
}

static const unsigned char *map(const char *path, size_t *len)
{
	struct stat st;
	int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		fail(path);
	*len = st.st_size;
	if (!*len)
		return NULL;
	void *at = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (at == MAP_FAILED)
		fail(path);
	return at;
}

static unsigned long occurrences(const unsigned char *at, size_t len, const char *text)
{
	const unsigned char *end = at + len;
	unsigned long count = 0;
	while (at && (at = memmem(at, end - at, text, strlen(text)))) {
		at += strlen(text);
		count++;
	}
	return count;
}

static int count(const char *path, size_t offset)
{
	size_t len;
	const unsigned char *at = map(path, &len);
	if (offset > len)
		offset = len;
	printf("%lu %lu\n", occurrences(at + offset, len - offset, BEGIN),
	       occurrences(at + offset, len - offset, END));
	return 0;
}

/* pcap: a head of 24 bytes, then packets with a head of 16.  Loopback frames are Ethernet's. */
static int segments(const char *path)
{
	size_t len;
	const unsigned char *file = map(path, &len);
	unsigned long total = 0;
	for (size_t i = 24; i + 16 <= len;) {
		uint32_t caplen;
		memcpy(&caplen, file + i + 8, 4);
		const unsigned char *ip = file + i + 16 + 14;
		i += 16 + caplen;
		if (i > len)
			break;
		unsigned head = (ip[0] & 15) * 4;
		const unsigned char *text = ip + head + (ip[head + 12] >> 4) * 4;
		const unsigned char *end = ip + (ip[2] << 8 | ip[3]);
		if (text < end && *text != MARK)
			total += end - text;
	}
	printf("%lu\n", total);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "count"))
		return count(argv[2], strtoull(argv[3], NULL, 10));
	if (argc == 3 && !strcmp(argv[1], "segments"))
		return segments(argv[2]);
	if (argc > 3 && !strcmp(argv[1], "-o")) {
		open_others(atol(argv[2]));
		argc -= 2;
		argv += 2;
	}
	if (argc < 5) {
		fprintf(stderr, "load: see load.c\n");
		return 2;
	}
	family = argv[1];
	address = argv[2];
	if (!strcmp(argv[3], "mark"))
		return mark(atol(argv[4]));
	size = atol(argv[4]);
	seconds = argc > 5 ? atof(argv[5]) : 1;
	number = argc > 6 ? atof(argv[6]) : 0;
	if (size < sizeof(BEGIN) + sizeof(END) || size > MOST_BYTES)
		return 2;
	memset(message, '.', size);
	memcpy(message, BEGIN, strlen(BEGIN));
	memcpy(message + size - strlen(END), END, strlen(END));
	return run(argv[3]);
}
