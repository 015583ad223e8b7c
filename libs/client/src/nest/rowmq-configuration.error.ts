/** RowMQ was set up in a way that cannot work; the application does not start. The message says what to change. */
export class RowmqConfigurationError extends Error {
  override readonly name = 'RowmqConfigurationError';
}
