const last = new WeakMap<object, Promise<unknown>>();

/**
 * Runs the enqueues of one transaction one after the other. If their statements took turns on the
 * connection, each enqueue would count messages, and look up groups and ids, without the other's.
 */
export async function inTurn<T>(transaction: object, enqueue: () => Promise<T>): Promise<T> {
  const turn = (last.get(transaction) ?? Promise.resolve()).then(enqueue, enqueue);
  last.set(transaction, turn);
  return turn;
}
