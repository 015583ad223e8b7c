import { type Agent, request } from 'node:http';
import type { Peer } from '@rowmq/store';
import { type Hint, HINT_PATH } from './hint.js';

/** By then the poll of the peer has found the message. */
const DEADLINE_MS = 1000;

/** Sends a hint. Rejects if the peer does not take it in time. */
export async function sendHint(agent: Agent, { url, token }: Peer, hint: Hint): Promise<void> {
  const body = JSON.stringify(hint);
  await new Promise<void>((resolve, reject) => {
    const sent = request(
      `${url}${HINT_PATH}`,
      {
        method: 'POST',
        agent,
        signal: AbortSignal.timeout(DEADLINE_MS),
        headers: {
          authorization: `Bearer ${token}`,
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(body),
        },
      },
      (answer) => {
        answer.resume();
        if (answer.statusCode === 204) answer.once('end', resolve);
        else reject(new Error(`The peer at ${url} answered a hint with ${answer.statusCode}.`));
        answer.once('error', reject);
      },
    );
    sent.once('error', reject);
    sent.end(body);
  });
}
