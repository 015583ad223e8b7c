/**
 * No broker ever gave this receipt. An ack of it tells with any API key whether the queue exists.
 */
export const NO_RECEIPT = 'is-there-such-a-queue';
