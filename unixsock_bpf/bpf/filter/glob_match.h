/* Running a name through the globs of a filter: automaton.py makes the tables and says what they mean.
 *
 * Each step is one path for the verifier, whatever the bytes are: it follows one path through all
 * bytes of all lanes, where a jump out of the loop would multiply the paths by their number. */

struct filter_row {
	u64 enter[2];
	u64 stay[2];
};

struct filter_work {
	u64 words[2 * FILTER_MAX_LANES]; /* where a lane ends after the last byte: 64 bits each */
	u16 rows[128]; /* for each byte, where its row is in each lane */
};

/* Bits of the atoms whose globs match `text`, of which the first `len` of `size` bytes count.
 * `tables` are for these globs alone: u8 row_of[256], then the lanes: u64 start[2], `rows` rows (a
 * power of two; the last one changes nothing); then `finals` times u8 word, u8 bit, u8 atom, u8 0. */
static __always_inline u64 filter_match(struct filter_work *work, const u8 *tables, u32 lanes, u32 rows,
					u32 finals, const u8 *text, u32 size, u32 len)
{
	const u8 *lane = tables + 256;
	u64 atoms = 0;

	_Pragma("clang loop unroll(disable)")
	for (u32 i = 0; i < size; i++) {
		u64 row = tables[text[i]] | (0 - filter_most(len, i));
		work->rows[i] = (row & (rows - 1)) * sizeof(struct filter_row);
	}
	_Pragma("clang loop unroll(disable)")
	for (u32 number = 0; number < lanes; number++) {
		u64 low = ((const u64 *)lane)[0], high = ((const u64 *)lane)[1];
		_Pragma("clang loop unroll_count(4)")
		for (u32 i = 0; i < size; i++) {
			u64 at = work->rows[i] & (rows - 1) * sizeof(struct filter_row);
			const struct filter_row *row = (const struct filter_row *)(lane + 16 + at);
			u64 up = high << 1 | low >> 63;
			low = (low << 1 & row->enter[0]) | (low & row->stay[0]);
			high = (up & row->enter[1]) | (high & row->stay[1]);
		}
		work->words[2 * number] = low;
		work->words[2 * number + 1] = high;
		lane += 16 + rows * sizeof(struct filter_row);
	}
	_Pragma("clang loop unroll(disable)")
	for (u32 i = 0; i < finals; i++) {
		u64 word = lane[4 * i] & (2 * FILTER_MAX_LANES - 1);
		u64 bit = lane[4 * i + 1] & 63, atom = lane[4 * i + 2] & 63;
		atoms |= (work->words[word] >> bit & 1) << atom;
	}
	return atoms;
}
