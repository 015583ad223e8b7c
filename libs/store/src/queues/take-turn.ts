/**
 * Serializes the creation of queues and of topics, and changes of dead-letter queues. Otherwise two
 * INSERTs of one name can deadlock. While a delete of that name runs, both wait for the same entry
 * of the index of names. Then both share a lock on the entry and the gap behind it, and each waits
 * for the other.
 *
 * It also serializes the creation of API keys and that of jobs. Two at once could exceed their
 * limit together.
 *
 * The reaper's row is the lock because it always exists. Its holder may wait for rows of queues and
 * topics, never the reverse.
 */
export const TAKE_TURN = `SELECT 1 FROM reaper_lease WHERE name = 'reaper' FOR UPDATE`;
