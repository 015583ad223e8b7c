/**
 * The configuration cannot work, and the application does not start. The message says what to
 * change.
 */
export class RowmqConfigurationError extends Error {
  override readonly name = 'RowmqConfigurationError';
}
