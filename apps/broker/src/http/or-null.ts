import { type ErrorCode, RowmqError } from '@rowmq/contract';

/** The answer of a look-up, or null if that throws this code. */
export async function orNull<T>(found: Promise<T>, code: ErrorCode): Promise<T | null> {
  try {
    return await found;
  } catch (error) {
    if (error instanceof RowmqError && error.code === code) return null;
    throw error;
  }
}
