/* The words between a primary and its workers about connections. */

/** A worker gets a connection. */
export const CONNECTION = 'connection';
/** The worker has it. */
export const TAKEN = 'taken';
/** A worker that stops asks for no further connections. */
export const LEAVING = 'leaving';
/** It gets none any more. */
export const LEFT = 'left';
