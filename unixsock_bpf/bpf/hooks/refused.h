/* Connects that fail, and sends of datagrams. */

#define ERESTARTSYS 512 /* a signal came while it waited */
#define ADDRESSED 1 /* the bit of a struct socket's address that is never set */

/* A send with an address: its struct msghdr, by thread, for the return. */
BPF_TABLE("lru_hash", u64, u64, addressed, 4096);

static __always_inline bool tell_refused(u32 slot, u64 sk, u64 address, u32 len, u8 event, int result)
{
	struct small_scratch *s = get_small_scratch(slot);
	u32 error = result == -ERESTARTSYS ? EINTR : -result;
	if (!s || !running() || !tell_event(slot, sk, event == EVENT_SEND_ERROR ? peer_of(sk) : 0, event, NEWS_USED))
		return false;
	s->call.value = error;
	s->call.len = 0;
	s->call.address = 0;
	if (address && len > 2 && LOAD(u16, address, 0) == AF_UNIX)
		s->call.len = take_sun_path((struct bound_name *)(s->data + ASKED_AT), address + 2, len - 2);
	if (s->call.len && event == EVENT_REFUSED && error != ENOENT && error != ECONNREFUSED)
		s->call.address = who_listens((struct bound_name *)(s->data + ASKED_AT), sk);
	return true;
}

static __always_inline bool on_connect_refused(u32 slot, const struct arguments *args, int result)
{
	u64 sk = LOAD(u64, args->first, SOCKET_SK);
	return result < 0 && tell_refused(slot, sk, args->second, args->third, EVENT_REFUSED, result);
}

static __always_inline u64 keep_addressed(const struct arguments *args)
{
	u64 message = args->second;
	/* Read as a number: in an fexit program it is a pointer, of which the verifier wants no bits to be set. */
	u64 socket = LOAD(u64, (u64)args, 0);
	if (!LOAD(u32, message, MSGHDR_NAME_LEN))
		return socket;
	u64 thread = bpf_get_current_pid_tgid();
	addressed.update(&thread, &message);
	return socket | ADDRESSED;
}

/* Whether it is the message that is wrong, or the sender, and not who it goes to. */
static __always_inline bool is_senders(int result)
{
	return result == -EINTR || result == -12 /* ENOMEM */ || result == -14 /* EFAULT */ || result == -22 /* EINVAL */ ||
	       result == -32 /* EPIPE */ || result == -90 /* EMSGSIZE */ || result == -95 /* EOPNOTSUPP */ ||
	       result == -105 /* ENOBUFS */ || result == -107 /* ENOTCONN */ || result == -ERESTARTSYS;
}

static __always_inline bool on_dgram_sent(u32 slot, u64 kept, int result)
{
	u64 sk, address = 0, thread = bpf_get_current_pid_tgid();
	u32 len = 0;
	if (result >= 0)
		return false;
	sk = LOAD(u64, kept & ~(u64)ADDRESSED, SOCKET_SK);
	u64 *message = kept & ADDRESSED ? addressed.lookup(&thread) : NULL;
	if (message) {
		address = LOAD(u64, *message, MSGHDR_NAME);
		len = LOAD(u32, *message, MSGHDR_NAME_LEN);
	}
	return tell_refused(slot, sk, address, len, address && !is_senders(result) ? EVENT_REFUSED : EVENT_SEND_ERROR,
			    result);
}
